"""DataDream, Diff-Aug, Diff-Gen, Diff-Mix and Diff-II as bank rows, and their images by the tiny model."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.stats import chisquare

from fastgen.bank.read import check_bank
from fastgen.cli import main
from fastgen.context import independence
from fastgen.errors import BankError, FastgenError
from fastgen.generate.schedulers import executed_steps
from fastgen.methods.datadream import write_datadream_bank
from fastgen.methods.diff_ii import write_diff_ii_bank
from fastgen.methods.diffusion_edit import soft_labels, write_diff_bank
from fastgen.production.run import plan, run
from fastgen.records import Header, Row
from tests.output_folder import images_of

SUFFIXES = ("on grass", "in snow")
WORDS = ("<cat>", "<dog>", "<red_bird>")
COUNTS = {"cat": 3, "dog": 2, "red bird": 1}


@pytest.fixture
def refs(tmp_path):
    """Three classes with three, two and one image."""
    for label, (name, count) in enumerate(COUNTS.items()):
        (tmp_path / "real" / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(10 * label + index).integers(0, 256, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "real" / name / f"{index}.png")
    return tmp_path / "real"


def quiet(line):
    pass


def read(path, refs=None):
    check_bank(path, refs=refs)
    header, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    return header, rows


def test_datadream_is_one_sentence_per_class(tmp_path, refs):
    path = write_datadream_bank(
        tmp_path / "b.jsonl", classes=list(COUNTS), descriptor="pet", lora="dd", per_class=4, say=quiet
    )
    header, rows = read(path)
    defaults = header["defaults"]
    assert (defaults["guidance_scale"], defaults["steps"], defaults["scheduler"]) == (2.0, 50, "pndm")
    assert Counter(row["prompt"] for row in rows) == {f"a pet photo of a {name}": 4 for name in COUNTS}
    assert all([a["target"] for a in row["adapters"]] == ["unet", "text"] for row in rows)
    assert all(row["lambda"] is None and "ref" not in row for row in rows) and len({row["seed"] for row in rows}) == 12


def test_datadream_with_one_lora_per_class_and_a_budget(tmp_path, refs):
    options = {"refs": refs, "lora": "dd-{label:03d}", "say": quiet}
    header, rows = read(write_datadream_bank(tmp_path / "b.jsonl", only=["dog"], per_class=2, **options))
    assert header["classes"] == list(COUNTS) and [row["label"] for row in rows] == [1, 1]
    assert rows[0]["adapters"][0]["name"] == "dd-001"
    _, rows = read(write_datadream_bank(tmp_path / "b.jsonl", budget=10, copies=4, **options))
    assert Counter(row["class"] for row in rows) == {"dog": 2, "red bird": 6}, "10 - 4 * 3 is none"
    for wrong in ({"only": ["cow"]}, {"template": "a {class} in {background}"}, {"refs": None}):
        with pytest.raises(BankError, match="allowed"):
            write_datadream_bank(tmp_path / "b.jsonl", **{**options, **wrong})


def test_diff_gen_is_text_to_image_with_the_learned_word(tmp_path, refs):
    path = write_diff_bank("diff-gen", tmp_path / "b.jsonl", refs=refs, superclass="pet", lora="dm", say=quiet)
    header, rows = read(path)
    assert len(rows) == 300 and rows[0]["prompt"] == "a photo of a <cat> pet"
    assert rows[0]["adapters"] == [
        {"name": "dm", "target": "unet", "scale": 1.0},
        {"name": "<cat>", "target": "ti", "scale": 1.0},
    ]
    assert all("ref" not in row and "strength" not in row for row in rows)
    defaults = header["defaults"]
    assert defaults["mode"] == "t2i" and (defaults["guidance_scale"], defaults["steps"]) == (7.5, 25)
    assert defaults["scheduler"] == "dpmsolver++"


def test_diff_aug_starts_from_the_own_class(tmp_path, refs):
    path = write_diff_bank(
        "diff-aug", tmp_path / "b.jsonl", refs=refs, token="{class}", strength=(0.3, 0.9), say=quiet
    )
    header, rows = read(path)
    assert header["defaults"]["refs"] == "real" and header["defaults"]["mode"] == "img2img"
    assert all(row["ref"]["label"] == row["label"] and row["ref"]["role"] == ["init"] for row in rows)
    assert all("labels" not in row and "adapters" not in row for row in rows)
    assert chisquare(list(Counter(row["strength"] for row in rows).values())).pvalue > 0.01
    assert {row["ref"]["path"] for row in rows if row["class"] == "cat"} == {f"cat/{i}.png" for i in range(3)}
    assert {row["prompt"] for row in rows} == {f"a photo of a {name}" for name in COUNTS}


def test_diff_mix_draws_source_and_target_independently_and_mixes_the_label(tmp_path, refs):
    path = write_diff_bank(
        "diff-mix", tmp_path / "b.jsonl", refs=refs, strength=(0.5, 0.7), soft_scaler=0.9, superclass="pet", say=quiet
    )
    _, rows = read(path)
    sources = [row["ref"]["label"] for row in rows]
    assert not independence([row["label"] for row in rows], sources).dependent
    assert chisquare(list(Counter(sources).values())).pvalue > 0.01, "classes alike, however many images they have"
    for row in rows:
        weights = dict(map(tuple, row["labels"]))
        share = row["strength"] ** 0.8
        expected = {row["ref"]["label"]: 0.0, row["label"]: 0.0}
        expected[row["ref"]["label"]] += 0.9 * (1 - share)
        expected[row["label"]] += 0.9 * share
        assert weights == pytest.approx(expected), "mistake 15"
        assert row["prompt"] == f"a photo of a {WORDS[row['label']]} pet"


def test_the_soft_label_of_the_card():
    """Mistakes 15 and 16: the exponent acts on the row's own strength."""
    assert dict(soft_labels(2, 5, 0.7, gamma=0.8, scaler=1.0)) == pytest.approx({2: 0.2482, 5: 0.7518}, abs=1e-4)
    assert dict(soft_labels(2, 5, 0.7, gamma=1.0, scaler=1.0)) == pytest.approx({2: 0.3, 5: 0.7})
    assert dict(soft_labels(5, 5, 0.7, gamma=0.8, scaler=0.9)) == pytest.approx({5: 0.9})
    for scaler in (0.9, 1.0):
        assert sum(weight for _, weight in soft_labels(0, 1, 0.3, gamma=0.8, scaler=scaler)) == pytest.approx(scaler)


def test_strength_is_rounded_down_to_steps():
    assert executed_steps(25, 0.7) == 17, "mistake 19"


def test_diff_ii_draws_pairs_and_ends_with_the_plain_prompt(tmp_path, refs):
    lines = []
    path = write_diff_ii_bank(
        tmp_path / "b.jsonl", refs=refs, suffixes=["on grass", " in snow "], superclass="pet", say=lines.append
    )
    header, rows = read(path)
    assert Counter(row["class"] for row in rows) == {"cat": 15, "dog": 10, "red bird": 5}, "five for each real image"
    for row in rows:
        assert row["mode"] == "latent" and row["init"]["kind"] == "circle" and row["init"]["inv_steps"] == 200
        assert row["prompt_late"] == f"a photo of a {WORDS[row['label']]} pet"
        assert row["prompt"] in {f"{row['prompt_late']} {suffix}" for suffix in ("on grass", "in snow")}, "mistake 18"
        assert row["switch"] == 0.3
        assert all(name.startswith(f"{row['class']}/") for name in row["init"]["refs"])
    pairs = {tuple(row["init"]["refs"]) for row in rows if row["class"] == "cat"}
    assert pairs == {("cat/0.png", "cat/1.png"), ("cat/0.png", "cat/2.png"), ("cat/1.png", "cat/2.png")}
    alone = {tuple(row["init"]["refs"]) for row in rows if row["class"] == "red bird"}
    assert alone == {("red bird/0.png", "red bird/0.png")}, "mistake 17"
    assert header["provenance"]["without_pair"] == ["red bird"] and "which have no pair: 1;" in lines[-1]


def test_switch_0_is_the_plain_prompt_and_1_the_suffix_throughout():
    """Mistake 18, as the engine reads it."""
    import torch

    from fastgen.generate.denoise import Conditions

    suffix, plain = torch.ones(3, 1, 1), torch.zeros(3, 1, 1)
    conditions = Conditions(
        text=suffix, late_text=plain, switch=torch.tensor([0.0, 0.4, 1.0]), image=plain, ip_scale=torch.zeros(3)
    )
    steps = [conditions.text_at(k / 10).flatten().tolist() for k in range(10)]
    assert [step[0] for step in steps] == [0.0] * 10
    assert [step[1] for step in steps] == [1.0] * 4 + [0.0] * 6, "early steps have the suffix"
    assert [step[2] for step in steps] == [1.0] * 10


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"strength": ()}, "strength: got"),
        ({"strength": (1.2,)}, "strength: got"),
        ({"gamma": -1}, "gamma: got"),
        ({"soft_scaler": 0}, "soft_scaler: got"),
        ({"per_class": 3, "per_real": 3}, "one of per_class, per_real and budget"),
        ({"refs": "nowhere"}, "one folder of images per class"),
        ({"refs": "petworld"}, "with petworld, a list of breeds"),
        ({"classes": ["cat", "cow"]}, "cow"),
        ({"lora": "x@y"}, "NAME@SCALE"),
    ],
)
def test_bad_arguments_are_one_clear_error(tmp_path, refs, wrong, message):
    with pytest.raises(FastgenError, match="allowed|references of class"):
        write_diff_bank("diff-mix", tmp_path / "b.jsonl", **{"refs": refs, "say": quiet, **wrong})
    try:
        write_diff_bank("diff-mix", tmp_path / "b.jsonl", **{"refs": refs, "say": quiet, **wrong})
    except FastgenError as error:
        assert message in str(error)
    assert not (tmp_path / "b.jsonl").exists()


def test_other_bad_arguments(tmp_path, refs):
    with pytest.raises(BankError, match="method: got"):
        write_diff_bank("diff-x", tmp_path / "b.jsonl", refs=refs)
    for wrong in ({"suffixes": [" "]}, {"suffixes": ["x"], "switch": 1.5}):
        with pytest.raises(BankError, match="allowed"):
            write_diff_ii_bank(tmp_path / "b.jsonl", refs=refs, **wrong)
    (refs / "Cat!").mkdir()
    Image.new("RGB", (8, 8)).save(refs / "Cat!" / "0.png")
    with pytest.raises(FastgenError, match="would be <cat>"):
        write_diff_bank("diff-gen", tmp_path / "b.jsonl", refs=refs)
    (refs / "train").mkdir()
    (refs / "test").mkdir()
    with pytest.raises(BankError, match="allowed: the training images"):
        write_diff_bank("diff-gen", tmp_path / "b.jsonl", refs=refs)


def test_petworld_references_need_no_folder(tmp_path):
    path = write_diff_bank(
        "diff-aug", tmp_path / "b.jsonl", refs="petworld", classes=["Pug", "Beagle"], shots=2, per_class=9, say=quiet
    )
    header, rows = read(path)
    assert header["defaults"]["refs"] == "petworld"
    assert {row["ref"]["id"] for row in rows if row["class"] == "Pug"} == {"petworld/Pug/0-0", "petworld/Pug/0-1"}


def test_every_bank_is_generated_by_the_tiny_model(tmp_path, refs, tiny_engine):
    """Mistake 16 with it: each row of a batch has its own source, target and strength."""
    common = {"refs": refs, "per_class": 2, "guidance": 2.0, "say": quiet}
    diff = {**common, "token": "{class}", "superclass": "pet", "steps": 4}
    banks = {
        "datadream": write_datadream_bank(tmp_path / "datadream.jsonl", steps=3, **common),
        "diff-ii": write_diff_ii_bank(tmp_path / "diff-ii.jsonl", suffixes=SUFFIXES, inv_steps=3, **diff),
    }
    for method in ("diff-gen", "diff-aug", "diff-mix"):
        banks[method] = write_diff_bank(method, tmp_path / f"{method}.jsonl", **diff, strength=(0.5, 1.0))
    for name, path in banks.items():
        report = run(path, engine=tiny_engine, out=tmp_path / name, quiet=True)
        assert (report.rows, report.failed, report.complete) == (6, 0, True), name
        images = images_of(tmp_path / name)
        assert len({image.tobytes() for image in images.values()}) == 6, name
    mixed = images_of(tmp_path / "diff-mix")
    run(banks["diff-mix"], engine=tiny_engine, out=tmp_path / "alone", batch=1, quiet=True)
    alone = images_of(tmp_path / "alone")
    assert all((mixed[id_] == alone[id_]).all() for id_ in mixed)


def test_rows_that_name_adapters_are_refused_by_an_engine_without_them(tmp_path, refs, tiny_engine):
    path = write_diff_bank("diff-aug", tmp_path / "b.jsonl", refs=refs, lora="dm", per_class=1, say=quiet)
    with pytest.raises(BankError) as caught:
        run(path, engine=tiny_engine, out=tmp_path / "out", quiet=True)
    assert "--lora dm=PATH@1" in str(caught.value) and "--embedding '<cat>=PATH'" in str(caught.value)


def test_a_lora_of_the_unet_alone_is_refused_before_any_image_is_made(tmp_path, tiny_engine, monkeypatch):
    """Mistake 6."""
    lora = {"name": "dd", "scale": 1.0, "targets": ["unet"], "files": {}}
    monkeypatch.setattr(tiny_engine, "spec", replace(tiny_engine.spec, lora=(lora,)))
    path = write_datadream_bank(tmp_path / "b.jsonl", classes=["a", "b"], per_class=1, lora="dd", say=quiet)
    message = 'got {"dd": "text"}, allowed: unet, all that the LoRA dd of this engine changes'
    with pytest.raises(BankError, match=message):
        run(path, engine=tiny_engine, out=tmp_path / "out", quiet=True)
    with pytest.raises(BankError, match=message):
        plan(path, engine=tiny_engine)
    assert not (tmp_path / "out" / "shards").exists()


def test_soft_labels_pass_through_the_rows():
    header = Header(name="x", classes=("a", "b"))
    row = Row.from_json({"class": "a", "prompt": "x", "labels": [[0, 0.4], [1, 0.5]]}, header)
    assert row.to_json()["labels"] == [[0, 0.4], [1, 0.5]]


@pytest.mark.parametrize("method", ["diff-aug", "diff-gen", "diff-mix", "diff-ii", "datadream"])
def test_commands(tmp_path, refs, method):
    (tmp_path / "settings.txt").write_text("on grass\nin snow\n")
    words = ["bank", method, "--refs", refs, "--out", tmp_path / "b.jsonl", "--per-class", 2, "--scheduler", "model"]
    own = {"diff-ii": ["--suffixes", tmp_path / "settings.txt"], "diff-mix": ["--strength", "uniform"]}
    words += own.get(method, [])
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    header, rows = read(tmp_path / "b.jsonl")
    assert len(rows) == 6 and header["provenance"]["kind"] == method and "scheduler" not in header["defaults"]
    assert header["provenance"]["seed_mode"] == "per_row", "mistake 23: recorded with every bank"
    if method == "diff-mix":
        assert header["provenance"]["strength"] == [0.3, 0.5, 0.7, 0.9]
