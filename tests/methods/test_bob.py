"""BOB's bank: joint pairs, donors of any class, counts, and the cells of its ablation."""

import json
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import chisquare

from fastgen.bank.captions import Caption
from fastgen.bank.read import check_bank
from fastgen.cli import main
from fastgen.context import context_of_rows
from fastgen.errors import BankError, FastgenError
from fastgen.methods.bob import write_bob_bank

CLASSES = ("akita", "boxer", "collie", "dingo")


def captions(counts=(5, 5, 5, 5)):
    """Confounded: every class has a background and a pose of its own, and one image elsewhere."""
    found = []
    for label, (class_, count) in enumerate(zip(CLASSES, counts, strict=True)):
        for i in range(count):
            at = label if i else (label + 1) % 4
            attributes = {"background": f"place {at}", "pose": f"pose {at + 4 * i}"}
            found.append(Caption(file=f"{class_}/{i}.png", class_=class_, attributes=attributes))
    return found


def bob(tmp_path, *, counts=(5, 5, 5, 5), **options):
    """Header and rows of a bank, as JSON."""
    options = {"per_class": 200, "say": lambda line: None} | options
    path = write_bob_bank(captions(counts), tmp_path / "bank.jsonl", **options)
    check_bank(path)
    header, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    return header, rows


def pair(row):
    return row["attrs"]["background"], row["attrs"]["pose"]


def test_pairs_are_of_one_donor_and_stand_in_the_prompt(tmp_path):
    _, rows = bob(tmp_path, descriptor="dog")
    known = {c.file: (c.attributes["background"], c.attributes["pose"]) for c in captions()}
    label_of = {c.file: CLASSES.index(c.class_) for c in captions()}
    for row in rows:
        attrs = row["attrs"]
        assert pair(row) == known[attrs["donor_id"]], "mistake 1: background and pose of different donors"
        assert attrs["donor_label"] == label_of[attrs["donor_id"]]
        assert row["prompt"] == (
            f"a dog photo of a {row['class']} in the {attrs['background']} background with the {attrs['pose']} pose."
        )
    assert {pair(row) for row in rows} == set(known.values())


def test_independent_pairing_is_another_thing_and_says_so(tmp_path):
    header, rows = bob(tmp_path, pairing="independent")
    known = {(c.attributes["background"], c.attributes["pose"]) for c in captions()}
    assert any(pair(row) not in known for row in rows)
    assert header["provenance"]["pairing"] == "independent"
    poses = {c.file: c.attributes["pose"] for c in captions()}
    assert all(poses[row["tags"]["pose_donor_id"]] == row["attrs"]["pose"] for row in rows)


def test_data_set_marginalisation_draws_every_image_alike_the_own_class_too(tmp_path):
    _, rows = bob(tmp_path)
    counts = Counter(row["attrs"]["donor_id"] for row in rows)
    assert len(counts) == 20 and chisquare(list(counts.values())).pvalue > 0.01
    own = np.mean([row["attrs"]["donor_label"] == row["label"] for row in rows])
    assert 0.19 < own < 0.31, "mistakes 2 and 3: one in four, not all of them and not none"
    found = context_of_rows(rows)
    assert not found["context"].dependent and not found["donor"].dependent
    assert found["donor"].mutual_information < 0.03


def test_class_marginalisation_keeps_the_confounding_and_the_check_finds_it(tmp_path):
    lines = []
    _, rows = bob(tmp_path, marginalize="class", say=lines.append)
    assert all(row["attrs"]["donor_label"] == row["label"] for row in rows)
    found = context_of_rows(rows)
    assert found["context"].dependent and found["donor"].dependent
    assert found["donor"].mutual_information == pytest.approx(np.log(4))
    assert sum("DEPEND" in line for line in lines) == 2
    assert [line for line in lines if "are independent" in line] == []


def test_without_marginalisation_the_plain_template_or_the_own_captions(tmp_path):
    header, rows = bob(tmp_path, marginalize="none", descriptor="dog", per_class=6)
    assert {row["prompt"] for row in rows} == {f"a dog photo of a {class_}" for class_ in CLASSES}
    assert all("attrs" not in row for row in rows)
    assert (header["provenance"]["none"], header["provenance"]["template"]) == (
        "template", "a {descriptor} photo of a {class}"
    )  # fmt: skip
    _, rows = bob(tmp_path, marginalize="none", none="own", per_class=10)
    assert Counter(row["attrs"]["donor_id"] for row in rows) == {c.file: 2 for c in captions()}
    assert all(row["attrs"]["donor_label"] == row["label"] for row in rows)


def test_preservation_changes_what_the_lora_is_trained_with_and_no_prompt(tmp_path):
    texts = {}
    prompts = {}
    for preserve in (True, False):
        file = tmp_path / "train.jsonl"
        header, rows = bob(tmp_path, preserve=preserve, training_captions=file, descriptor="aircraft", per_class=3)
        texts[preserve] = [json.loads(line) for line in file.read_text().splitlines()]
        prompts[preserve] = [row["prompt"] for row in rows]
        assert header["provenance"]["preserve"] is preserve
        assert header["defaults"]["tags"] == {"marginalize": "dataset", "preserve": preserve}
    assert prompts[True] == prompts[False]
    assert texts[False][0] == {"file_name": "akita/0.png", "text": "a aircraft photo of a akita"}
    assert texts[True][0]["text"] == (
        "a aircraft photo of a akita in the place 1 background with the pose 1 pose."
    ), "mistake 8: the article is that of the prompts"
    assert all(text.startswith("a aircraft photo of a ") for text in prompts[True])


def test_donors_follow_the_head_classes_unless_classes_are_drawn(tmp_path):
    """Mistake 4: both are offered, images are the default."""
    counts = (60, 20, 10, 10)
    _, rows = bob(tmp_path, counts=counts, per_class=500)
    found = [sum(row["attrs"]["donor_label"] == label for row in rows) for label in range(4)]
    assert chisquare(found, np.array(counts) * 20).pvalue > 0.01
    _, rows = bob(tmp_path, counts=counts, per_class=500, donor_weight="class")
    found = [sum(row["attrs"]["donor_label"] == label for row in rows) for label in range(4)]
    assert chisquare(found).pvalue > 0.01


def test_long_tail_budgets(tmp_path):
    header, rows = bob(tmp_path, counts=(40, 20, 5, 1), per_class=None, budget=200, copies=6)
    assert Counter(row["class"] for row in rows) == {"boxer": 80, "collie": 170, "dingo": 194}, "none for akita"
    assert (header["provenance"]["budget"], header["provenance"]["copies"]) == (200, 6)
    for wrong in ({"budget": 200}, {"copies": 6}, {"per_class": 5, "budget": 9, "copies": 1}, {"per_class": 0}):
        with pytest.raises(BankError, match="allowed"):
            bob(tmp_path, **{"per_class": None, **wrong})


def test_settings_are_bobs_own_and_can_be_left_to_the_model(tmp_path):
    header, _ = bob(tmp_path, per_class=1)
    defaults = header["defaults"]
    assert (defaults["guidance_scale"], defaults["steps"], defaults["scheduler"]) == (2.0, 50, "pndm"), "mistake 7"
    header, _ = bob(tmp_path, per_class=1, guidance=None, steps=None, scheduler=None)
    assert not {"guidance_scale", "steps", "scheduler"} & set(header["defaults"])


def test_rows_name_the_lora_for_unet_and_text_encoder(tmp_path):
    _, rows = bob(tmp_path, per_class=1, lora="bob-dogs@0.9")
    assert rows[0]["adapters"] == [{"name": "bob-dogs", "target": t, "scale": 0.9} for t in ("unet", "text")]
    for name in ("bob-{label}", "bob-{class}"):
        with pytest.raises(BankError, match="one LoRA of the whole data set"):
            bob(tmp_path, lora=name)  # mistake 5
    for name in ("x@", "@1", "x@far", "x@99"):
        with pytest.raises(BankError, match="NAME@SCALE"):
            bob(tmp_path, lora=name)


def test_learnt_words_stand_for_the_names_and_are_asked_of_the_engine(tmp_path):
    header, rows = bob(tmp_path, words=True, lora="pets", per_class=2)
    _, plain = bob(tmp_path, lora="pets", per_class=2)
    assert header["provenance"]["words"] is True
    for row, other in zip(rows, plain, strict=True):
        word = f"<{row['class']}>"
        assert row["prompt"] == other["prompt"].replace(row["class"], word)
        assert row["adapters"] == [*other["adapters"], {"name": word, "target": "ti", "scale": 1.0}]
    with pytest.raises(FastgenError, match="rename it"):
        bob(tmp_path, words=True, classes=[*CLASSES, "akita!"])


def test_noise_is_each_rows_own_unless_asked_otherwise(tmp_path):
    """Mistake 23: shared noise is recorded."""
    header, rows = bob(tmp_path, per_class=5)
    assert len({row["seed"] for row in rows}) == 20 and header["provenance"]["seed_mode"] == "per_row"
    header, shared = bob(tmp_path, per_class=5, seed_mode="per_class_reset")
    assert header["provenance"]["seed_mode"] == "per_class_reset"
    by_class = {class_: [row["seed"] for row in shared if row["class"] == class_] for class_ in CLASSES}
    assert len(set(map(tuple, by_class.values()))) == 1 and len(set(by_class["akita"])) == 5
    assert [row["prompt"] for row in shared] == [row["prompt"] for row in rows]


def test_the_seed_decides_everything_and_other_classes_nothing(tmp_path):
    one = bob(tmp_path, per_class=10)
    assert bob(tmp_path, per_class=10) == one and bob(tmp_path, per_class=10, seed=1)[1] != one[1]
    longer = bob(tmp_path, per_class=20)[1]
    assert [row for row in longer if int(row["id"][-4:]) < 10] == one[1]


def test_the_attribute_bank_is_hashed(tmp_path):
    one = bob(tmp_path)[0]["provenance"]["attributes"]
    two = bob(tmp_path, counts=(5, 5, 5, 4))[0]["provenance"]["attributes"]
    assert (one["images"], two["images"]) == (20, 19) and one["sha256"] != two["sha256"]


def test_attributes_that_name_a_class_are_refused(tmp_path):
    """Mistake 9."""
    attributes = {"background": "two Boxers", "pose": "x"}
    bad = [*captions(), Caption(file="akita/9.png", class_="akita", attributes=attributes)]
    with pytest.raises(BankError, match=r"akita/9.png: background: got 'two Boxers', allowed: .*names boxer"):
        write_bob_bank(bad, tmp_path / "bank.jsonl")


def test_prompts_whose_pose_would_be_cut_off_are_refused(tmp_path):
    """Mistake 10."""
    attributes = {"background": "wide " * 70, "pose": "sitting"}
    bad = [*captions(), Caption(file="akita/9.png", class_="akita", attributes=attributes)]
    with pytest.raises(BankError, match=r"allowed: 77, .*shorten the attributes of akita/9.png"):
        write_bob_bank(bad, tmp_path / "bank.jsonl")
    assert not (tmp_path / "bank.jsonl").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"marginalize": "datset"}, 'marginalize: got "datset", allowed: dataset, class, none'),
        ({"none": "plain"}, "none: got"),
        ({"pairing": "x"}, "pairing: got"),
        ({"donor_weight": "x"}, "donor_weight: got"),
        ({"article": "x"}, "article: got"),
        ({"seed_mode": "x"}, "seed_mode: got"),
        ({"classes": CLASSES[:3]}, "dingo/0.png: class: got 'dingo'"),
        ({"classes": (*CLASSES, "eskimo"), "marginalize": "class"}, "no captions of eskimo"),
        ({"template": "a photo"}, "names in braces"),
        ({"guidance": -1.0}, "defaults.guidance_scale"),
    ],
)
def test_bad_arguments_are_one_clear_error(tmp_path, options, message):
    with pytest.raises(BankError) as caught:
        bob(tmp_path, **options)
    assert message in str(caught.value)


def test_other_attributes_go_into_the_prompt_and_the_tags(tmp_path):
    found = [Caption(file=f"{c}/1.png", class_=c, attributes={"weather": f"{c[0]} rain"}) for c in CLASSES]
    path = write_bob_bank(
        found, tmp_path / "b.jsonl", template="a {class} in {weather}", per_class=2, say=lambda line: None
    )
    row = json.loads(path.read_text().splitlines()[1])
    assert row["prompt"] == f"a akita in {row['tags']['weather']}" and row["attrs"]["donor_id"].endswith("/1.png")


@pytest.mark.parametrize("article", ["literal", "fix"])
@pytest.mark.parametrize("descriptor", ["", "aircraft", "pet"])
def test_prompts_are_the_captions_that_fine_tuning_learns(article, descriptor):
    """Mistake 8."""
    from fastgen.bank.caption_text import BOB_TEMPLATE, PLAIN_TEMPLATE, caption_text
    from fastgen.class_words import word_of
    from fastgen.finetune import wording
    from fastgen.methods.diffusion_edit import TOKEN, class_prompt

    for class_ in ("A380", "Maine Coon", "737-800", "Fox Sparrow"):
        context = {"background": "overcast sky", "pose": "landing"}
        values = {"class": class_, "descriptor": descriptor, **context}
        for ours, theirs in ((BOB_TEMPLATE, wording.BOB), (PLAIN_TEMPLATE, wording.DATADREAM)):
            text = caption_text(ours, class_, context, descriptor=descriptor, article=article)
            assert text == wording.fill(theirs, values, article=article)
        word = wording.fill(wording.DIFF_MIX, {"class": word_of(class_), "descriptor": descriptor})
        assert class_prompt(TOKEN, class_, 7, descriptor) == word


def test_command(tmp_path):
    file = tmp_path / "captions.jsonl"
    lines = [{"file_name": c.file, **c.attributes} for c in captions()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["bank", "bob", "--captions", file, "--out", tmp_path / "b.jsonl", "--marginalize", "class"]
    more = ["--no-preserve", "--per-class", 3, "--steps", "4", "--scheduler", "model", "--guidance", "1.5"]
    result = CliRunner().invoke(main, [str(word) for word in [*words, *more]], catch_exceptions=False)
    assert result.exit_code == 0 and "DEPEND" in result.stderr
    header = json.loads((tmp_path / "b.jsonl").read_text().splitlines()[0])
    assert header["provenance"]["preserve"] is False and header["classes"] == list(CLASSES)
    assert (header["defaults"]["steps"], header["defaults"]["guidance_scale"]) == (4, 1.5)
    assert "scheduler" not in header["defaults"]
    wrong = CliRunner().invoke(main, [*map(str, words), "--steps", "many"])
    assert wrong.exit_code == 2 and "got --steps many" in wrong.output
