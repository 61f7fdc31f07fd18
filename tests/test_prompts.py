"""The shipped banks hold what they promise; the sentences are read as plain JSON and text here."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fastgen.bank.read import check_bank
from fastgen.petworld.attributes import BACKGROUNDS, NOVEL_PETS, OXFORD_PETS, POSES
from fastgen.plan.references import petworld_scene
from fastgen.records import Header, Row
from repro import make_novel_bob

PROMPTS = Path(__file__).parents[1] / "prompts"
BANKS = [PROMPTS / f"{name}.jsonl" for name in ("pets", "pets-base", "novel", "novel-bob")]

PLACES = {
    "meadow": "meadow|grass|grassy|park|lawn|garden|pasture|wildflowers?",
    "beach": "beach|seaside|shore|sea|ocean|surf",
    "forest": "forest|woods|woodland",
    "street": "street|sidewalk|pavement|alley|city",
    "snow": "snow|snowy|winter",
    "lake": "lake|lakeside|pond|river",
    "sofa": "sofa|couch|living room|armchair",
    "kitchen": "kitchen",
    "desert": "desert|cactus|cacti",
    "night": "night|moonlit|moonlight|starry",
}
ACTIONS = {
    "sitting": "sits|sitting|seated",
    "standing": "stands|standing",
    "lying": "lies|lying|sleeps|sleeping|curled up|stretched out",
    "running": "runs|running|trots|sprints|gallops|dashes|races|racing",
    "jumping": "jumps|jumping|leaps|leaping|hops|bounces|bouncing",
}
VIEWS = (
    "view|viewed|angle|angled|close-up|shot|portrait|profile|seen|eye level|eye-level|shown|photo|"
    "photographed|captured|caught"
)
COLORS = (
    "black|white|gray|brown|tan|red|reddish|orange|gold|golden|cream|fawn|silver|beige|copper|chestnut|rusty?|ginger|"
    "apricot|ivory|pink|pinkish|rosy|tricolor|tricolored|tawny|brindled?|blue|bronze|russet|buff|blond|taupe|peach|green|mint|teal|aqua|lilac|mauve|violet|yellow|navy|"
    "indigo|olive|khaki|charcoal|dark|rusty"
)


def read(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and rows of a shipped bank, as plain JSON."""
    lines = (PROMPTS / name).read_text(encoding="utf-8").splitlines()
    return json.loads(lines[0]), [json.loads(line) for line in lines[1:]]


def says(text: str, words: str) -> bool:
    """Whether one of the words (alternatives of a pattern) stands in the text, as a whole word."""
    return re.search(rf"\b(?:{words})\b", text, re.IGNORECASE) is not None


def those_said(text: str, table: dict[str, str]) -> list[str]:
    """The keys of the table whose words stand in the text."""
    return [key for key, words in table.items() if says(text, words)]


def classes_said(text: str, classes: list[str]) -> list[str]:
    """The classes that a text names, longest name first; a name inside a longer one does not count."""
    found = []
    for class_ in sorted(classes, key=len, reverse=True):
        pattern = rf"\b{re.escape(class_)}(?:s|es)?\b"
        text, hits = re.subn(pattern, "#", text, flags=re.IGNORECASE)
        found += [class_] * (hits > 0)
    return found


HEADER, ROWS = read("pets.jsonl")
NOVEL_HEADER, NOVEL_ROWS = read("novel.jsonl")
EACH_CLASS = pytest.mark.parametrize("class_", [*OXFORD_PETS, *NOVEL_PETS])


def sentences(class_: str) -> list[str]:
    """The prompts of a class of pets.jsonl or novel.jsonl."""
    return [row["prompt"] for row in (*ROWS, *NOVEL_ROWS) if row["class"] == class_]


@pytest.mark.parametrize("path", BANKS, ids=lambda path: path.stem)
def test_every_line_is_valid(path: Path) -> None:
    first, rows = read(path.name)
    header = Header.from_json(first)
    assert header.name == path.stem
    assert header.score_template == "a photo of a {class}"
    assert header.provenance["written_by"]
    known = [Row.from_json(row, header) for row in rows]
    assert len({row.id for row in known}) == len(known)
    assert list(dict.fromkeys(row.class_ for row in known)) == list(header.classes)


@pytest.mark.parametrize("path", BANKS, ids=lambda path: path.stem)
def test_the_strict_reader_accepts(path: Path) -> None:
    assert check_bank(path).header.name == path.stem


def test_pets_header() -> None:
    assert HEADER["classes"] == list(OXFORD_PETS)
    assert HEADER["defaults"] == {
        "refs": "petworld",
        "shots": 1,
        "policy": "ags",
        "prefix": "best quality, high quality, ",
        "negative_prompt": "monochrome, lowres, bad anatomy, worst quality, low quality",
        "scheduler": "ddim",
        "method": "dalda",
    }
    provenance = HEADER["provenance"]
    assert provenance["date"] == "2026-11-21"
    assert len(provenance["rules"]) == 5
    assert provenance["rows"] == len(ROWS) == 370


def test_novel_header() -> None:
    assert NOVEL_HEADER["classes"] == list(NOVEL_PETS)
    assert NOVEL_HEADER["defaults"] == HEADER["defaults"]
    assert NOVEL_HEADER["provenance"]["rows"] == len(NOVEL_ROWS) == 120


@pytest.mark.parametrize(("bank", "rows", "classes"), [("pets", ROWS, OXFORD_PETS), ("novel", NOVEL_ROWS, NOVEL_PETS)])
def test_ids_and_fields_of_the_sentences(bank: str, rows: list[dict[str, Any]], classes: tuple[str, ...]) -> None:
    for index, row in enumerate(rows):
        slug = row["class"].lower().replace(" ", "-")
        assert set(row) == {"id", "class", "prompt"}
        assert row["id"] == f"{bank}-{slug}-{index % 10:02d}"
        assert row["class"] == classes[index // 10]


@EACH_CLASS
def test_form_of_a_sentence(class_: str) -> None:
    for text in sentences(class_):
        assert text.isascii(), text
        assert text.isprintable(), text
        assert not set(text) & set("{}"), text
        assert 15 <= len(text.split()) <= 40, text
        assert text[0].isupper(), text
        assert text.endswith("."), text
        assert text.count(".") == 1, text
        assert "  " not in text, text


@EACH_CLASS
def test_a_sentence_names_its_class_and_no_other(class_: str) -> None:
    for text in sentences(class_):
        assert re.search(rf"\b{class_}\b", text), f"in the spelling of the header: {text}"
        assert classes_said(text, HEADER["classes"] + NOVEL_HEADER["classes"]) == [class_], text


@EACH_CLASS
def test_a_sentence_says_view_and_color_and_one_place_and_action(class_: str) -> None:
    for text in sentences(class_):
        bare = text.replace(class_, "#")  # "Russian Blue" is no color
        assert says(bare, VIEWS), text
        assert says(bare, COLORS), text
        assert len(those_said(bare, PLACES)) == 1, text
        assert len(those_said(bare, ACTIONS)) == 1, text


def test_sentences_differ_also_without_the_class() -> None:
    bare = [re.sub(r"\W+", " ", row["prompt"].replace(row["class"], "#")).lower() for row in (*ROWS, *NOVEL_ROWS)]
    assert len(set(bare)) == len(bare)


@EACH_CLASS
def test_ten_sentences_cover_ten_places_and_five_actions(class_: str) -> None:
    texts = sentences(class_)
    assert Counter(those_said(text, PLACES)[0] for text in texts) == dict.fromkeys(BACKGROUNDS, 1)
    assert Counter(those_said(text, ACTIONS)[0] for text in texts) == dict.fromkeys(POSES, 2)


def test_place_does_not_foretell_the_action() -> None:
    pairs = Counter(
        (those_said(row["prompt"], PLACES)[0], those_said(row["prompt"], ACTIONS)[0]) for row in ROWS
    )
    assert len(pairs) == 50
    assert set(pairs.values()) <= {7, 8}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("an American Bulldog and a bulldog", ["American Bulldog"]),
        ("a Staffordshire Bull Terrier", ["Staffordshire Bull Terrier"]),
        ("two pugs on a persian rug", ["Persian", "Pug"]),
        ("a bombayish boxed wheat terrier", []),
    ],
)
def test_finding_class_names(text: str, expected: list[str]) -> None:
    assert classes_said(text, list(OXFORD_PETS)) == expected


def test_base_bank_is_one_template_per_class() -> None:
    header, rows = read("pets-base.jsonl")
    assert header["classes"] == HEADER["classes"]
    assert {**header["defaults"], "method": "dalda"} == HEADER["defaults"], "so that only the prompt differs"
    assert [row["prompt"] for row in rows] == [f"a photo of a {class_}" for class_ in OXFORD_PETS]


def test_bob_attributes_are_the_donors_ground_truth() -> None:
    header, rows = read("novel-bob.jsonl")
    assert header["classes"] == list(NOVEL_PETS)
    for row in rows:
        attrs = row["attrs"]
        scene = petworld_scene(attrs["donor_id"])
        assert (attrs["background"], attrs["pose"]) == (scene.background, scene.pose)
        assert header["classes"][attrs["donor_label"]] == scene.breed
        assert row["prompt"] == (
            f"a pet photo of a {row['class']} in the {scene.background} background "
            f"with the {scene.pose} pose."
        )


def test_bob_rows_are_complete_and_need_no_reference() -> None:
    header, rows = read("novel-bob.jsonl")
    assert Counter(row["class"] for row in rows) == dict.fromkeys(NOVEL_PETS, 20)
    assert len({row["seed"] for row in rows}) == len(rows)
    for row in rows:
        assert row["lambda"] is None
        assert "ref" not in row
        assert Row.from_json(row, Header.from_json(header)).is_image_row


def test_bob_donors_come_from_the_whole_data_set() -> None:
    header, rows = read("novel-bob.jsonl")
    labels = Counter(row["attrs"]["donor_label"] for row in rows)
    assert set(labels) == set(range(len(NOVEL_PETS)))
    own = sum(header["classes"].index(row["class"]) == row["attrs"]["donor_label"] for row in rows)
    assert own < len(rows) / 4, (
        "one in twelve when drawn uniformly; all of them would be class-level by mistake"
    )


def test_bob_bank_is_what_the_script_writes(tmp_path: Path) -> None:
    made = make_novel_bob.make(tmp_path / "bank.jsonl")
    assert made.read_bytes() == (PROMPTS / "novel-bob.jsonl").read_bytes(), (
        "run python -m repro.make_novel_bob"
    )
