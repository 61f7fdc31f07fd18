"""A bank is checked line by line, in flat memory, with messages a user can act on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastgen.bank.read import MAX_LINE, check_bank, open_bank
from fastgen.bank.unique import DuplicateFinder
from fastgen.errors import BankError, FieldProblem, ReferenceImageError
from fastgen.files import sha256_file

ROOT = Path(__file__).resolve().parents[2]
HEADER = {"fastgen_bank": 1, "name": "pets", "classes": ["tabby cat", "pug"]}
GOOD = {"class": "pug", "prompt": "a pug"}


def text_of(*lines, end="\n"):
    return ("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end).encode()


def bank(folder, *lines, end="\n"):
    path = folder / "bank.jsonl"
    path.write_bytes(text_of(*lines, end=end))
    return path


def with_row(**fields):
    return text_of(HEADER, GOOD, {**GOOD, **fields})


def with_header(**fields):
    return text_of({**HEADER, **fields}, GOOD)


BAD_BANKS = {
    # name: (bytes, line, field, got, allowed)
    "unknown field": (with_row(stesp=3), 3, "stesp", "an unknown field", "did you mean 'steps'?"),
    "missing prompt": (text_of(HEADER, {"class": "pug"}), 2, "prompt", "nothing", "every row needs"),
    "missing class": (text_of(HEADER, {"prompt": "x"}), 2, "class", "nothing", "every row needs"),
    "class not in header": (with_row(**{"class": "pugg"}), 3, "class", '"pugg"', "did you mean 'pug'?"),
    "label of another class": (with_row(label=0), 3, "label", "0", "1, the header's index of class \"pug\""),
    "steps as text": (with_row(steps="30"), 3, "steps", '"30"', "a whole number from 1 to 1000"),
    "bool for int": (with_row(seed=True), 3, "seed", "true", "a whole number from 0 to 18446744073709551615"),
    "width not a multiple": (with_row(width=500), 3, "width", "500", "a multiple of 8"),
    "lambda too large": (with_row(**{"lambda": 5}), 3, "lambda", "5", "a number from 0 to 2"),
    "strength zero": (with_row(strength=0), 3, "strength", "0", "a number above 0 up to 1"),
    "adapter target": (with_row(adapters=[{"name": "x", "target": "clip"}]), 3, "adapters[0].target",
        '"clip"', '"unet" or "text"'),
    "soft labels": (with_row(labels=[[0, 1.2]]), 3, "labels[0][1]", "1.2", "a number from 0 to 1"),
    "infinite number": (text_of(HEADER, GOOD, json.dumps(GOOD)[:-1] + ', "score": Infinity}'), 3, "the line",
        "Infinity", "finite numbers"),
    "overflowing number": (text_of(HEADER, GOOD, json.dumps(GOOD)[:-1] + ', "score": 1e999}'), 3, "score",
        "Infinity", "a number from -1 to 2.5"),
    "NUL in prompt": (with_row(prompt="a\0b"), 3, "prompt", '"a\\u0000b"', "without NUL"),
    "duplicate key": (text_of(HEADER, GOOD, '{"class": "pug", "prompt": "a", "prompt": "b"}'), 3, "prompt",
        'the key "prompt" 2 times', "each key once"),
    "duplicate id": (text_of(HEADER, {**GOOD, "id": "a"}, {**GOOD, "id": "b"}, {**GOOD, "id": "a"}), 4, "id",
        '"a"', "an id that no other row has; line 2 has it already"),
    "absolute reference": (with_row(ref={"path": "/x.png"}), 3, "ref.path", '"/x.png"', "a path relative to"),
    "climbing reference": (with_row(ref={"path": "../x.png"}), 3, "ref.path", '"../x.png"', "without '..'"),
    "missing reference": (with_row(ref={"path": "x.png"}), 3, "ref.path", '"x.png"',
        "there is no such file in"),
    "reference is a folder": (with_row(ref={"path": "folder"}), 3, "ref.path", '"folder"',
        "there is no such file in"),
    "reference name too long": (with_row(ref={"path": "x" * 400}), 3, "ref.path", '"xxx',
        "there is no such file in"),
    "linked reference": (with_row(ref={"path": "out.png"}), 3, "ref.path", '"out.png"', "a link that leaves"),
    "circular link": (with_row(ref={"path": "ring.png"}), 3, "ref.path", '"ring.png"',
        "a reference that exists"),
    "not JSON": (text_of(HEADER, GOOD, "class: pug"), 3, "the line", '"class: pug"', "one JSON object"),
    "not an object": (text_of(HEADER, GOOD, "[1, 2]"), 3, "the line", "[1, 2]", "one JSON object"),
    "empty line": (text_of(HEADER, "", GOOD), 2, "the line", "an empty line", "delete the line"),
    "blank end": (text_of(HEADER, GOOD, "  "), 3, "the line", "an empty line", "delete the line"),
    "cut off": (text_of(HEADER, GOOD, '{"class": "pug", "pro', end=""), 3, "the line", "JSON ends at column",
        "the file ends inside this line: is it cut off?"),
    "byte order mark": (b"\xef\xbb\xbf" + text_of(HEADER, GOOD), 1, "the line", "a byte order mark",
        "UTF-8 without it"),
    "not UTF-8": (text_of(HEADER, GOOD) + b'{"class": "pug", "prompt": "\xe9"}\n', 3, "the line",
        "byte 0xe9 at position 28", "UTF-8 text"),
    "UTF-16": ("\ufeff".encode("utf-16-le") + b"x", 1, "the line", "byte 0xff at position 0", "UTF-8 text"),
    "endless line": (text_of(HEADER, GOOD, " " * (MAX_LINE + 7)), 3, "the line", f"{MAX_LINE + 8} bytes",
        f"at most {MAX_LINE} bytes"),
    "empty file": (b"", 1, "the line", "an empty file", "a header in line 1"),
    "header only": (text_of(HEADER), 2, "the line", "the end of the file", "at least one row"),
    "no header": (text_of(GOOD, GOOD), 1, "fastgen_bank", "nothing", "line 1 must be the header"),
    "second header": (text_of(HEADER, GOOD, HEADER), 3, "fastgen_bank", "a second header",
        "one header, in line 1"),
    "other version": (with_header(fastgen_bank=2), 1, "fastgen_bank", "2", "the only format version"),
    "repeated class": (with_header(classes=["pug", "pug"]), 1, "classes[1]", '"pug"', "each class once"),
    "no classes": (with_header(classes=None), 1, "classes", "nothing", "the header needs it"),
    "template without class": (with_header(score_template="a photo"), 1, "score_template", '"a photo"',
        "{class}"),
    "unknown default": (with_header(defaults={"guidance": 3}), 1, "defaults.guidance", "an unknown field",
        "did you mean 'guidance_scale'?"),
    "default of a bad type": (with_header(defaults={"steps": 2.5}), 1, "defaults.steps", "2.5",
        "a whole number"),
    "default refs elsewhere": (with_header(defaults={"refs": "/data"}), 1, "defaults.refs", '"/data"',
        "relative"),
    "default refs missing": (with_header(defaults={"refs": "imgs"}), 1, "defaults.refs", '"imgs"',
        "pass --refs"),
    "default refs a link": (with_header(defaults={"refs": "outlink"}), 1, "defaults.refs", '"outlink"',
        "leaves it"),
}  # fmt: skip


@pytest.fixture
def home(tmp_path):
    """A bank's folder with a folder, links to a file and a folder outside, and a link to itself."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "real.png").write_bytes(b"png")
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    (home / "good.png").write_bytes(b"png")
    (home / "out.png").symlink_to(tmp_path / "outside" / "real.png")
    (home / "outlink").symlink_to(tmp_path / "outside")
    (home / "ring.png").symlink_to(home / "ring.png")
    return home


@pytest.mark.parametrize("case", BAD_BANKS)
def test_one_bad_thing_is_one_message_with_line_field_got_and_allowed(home, case):
    data, line, field, got, allowed = BAD_BANKS[case]
    path = home / "bank.jsonl"
    path.write_bytes(data)
    with pytest.raises(BankError) as caught:
        check_bank(path)
    message = [m for m in str(caught.value).splitlines() if m.startswith(f"{path}:{line}: ")]
    where = field if field == "the line" else f"field {field!r}"
    assert message and message[0].startswith(f"{path}:{line}: {where}: got ")
    assert got in message[0].split(", allowed: ")[0]
    assert allowed in message[0].split(", allowed: ", 1)[1]
    assert len(message[0]) < 700
    if case != "no header":
        assert caught.value.total == 1, str(caught.value)


def test_a_good_bank(home):
    path = bank(
        home, HEADER, {**GOOD, "id": "1", "ref": {"path": "good.png"}}, {**GOOD, "class": "tabby cat"}
    )
    found = check_bank(path)
    assert (found.path, found.count, found.header.classes) == (path, 2, ("tabby cat", "pug"))
    assert found.sha256 == sha256_file(path) == open_bank(path).sha256
    rows = list(found.rows())
    assert [(n, r.class_, r.label) for n, r in rows] == [(2, "pug", 1), (3, "tabby cat", 0)]
    assert list(open_bank(path).rows()) == rows
    assert open_bank(path).count is None


@pytest.mark.parametrize("end, newline", [("\n", "\n"), ("", "\n"), ("\r\n", "\r\n"), ("", "\r\n")])
def test_line_ends_of_either_kind_and_a_last_line_without_one(tmp_path, end, newline):
    path = tmp_path / "bank.jsonl"
    path.write_bytes((newline.join([json.dumps(HEADER), json.dumps({**GOOD, "id": "é"})]) + end).encode())
    assert [r.id for _, r in check_bank(path).rows()] == ["é"]


def test_a_line_of_just_the_largest_size_is_read(tmp_path):
    line = json.dumps({**GOOD, "prompt": ""})
    full = json.dumps({**GOOD, "prompt": "x" * (MAX_LINE - len(line) - 1)})
    assert check_bank(bank(tmp_path, HEADER, full)).count == 1
    with pytest.raises(BankError, match=f"got {MAX_LINE + 1} bytes"):
        check_bank(bank(tmp_path, HEADER, full + " "))


def test_all_problems_are_listed_in_the_order_of_the_file(home):
    path = bank(
        home,
        {**HEADER, "defaults": {"stps": 1}},
        {**GOOD, "id": "a", "seed": -1, "steps": 0},
        "",
        {**GOOD, "id": "b"},
        {**GOOD, "id": "b"},
        {**GOOD, "class": "cow"},
        {**GOOD, "ref": {"path": "no.png"}},
    )
    with pytest.raises(BankError) as caught:
        check_bank(path)
    heads = [m.removeprefix(f"{path}:").split(": got")[0] for m in str(caught.value).splitlines()]
    assert heads[:4] == ["1: field 'defaults.stps'", "2: field 'seed'", "2: field 'steps'", "3: the line"]
    assert heads[4:] == ["5: field 'id'"], "without a header neither classes nor references can be judged"
    path = bank(
        home, HEADER, {**GOOD, "id": "b"}, {**GOOD, "class": "cow"}, {**GOOD, "id": "b"}, {**GOOD, "ref": 1}
    )
    with pytest.raises(BankError) as caught:
        check_bank(path)
    heads = [m.removeprefix(f"{path}:").split(": got")[0] for m in str(caught.value).splitlines()]
    assert heads == ["3: field 'class'", "4: field 'id'", "5: field 'ref'"]


def test_twenty_problems_are_shown_and_the_rest_is_counted(tmp_path):
    rows = [{**GOOD, "id": "same", "steps": 0} if i % 2 else {**GOOD, "id": "same"} for i in range(60)]
    with pytest.raises(BankError) as caught:
        check_bank(bank(tmp_path, HEADER, *rows))
    lines = str(caught.value).splitlines()
    assert len(lines) == 21 and caught.value.total == 30 + 29
    assert lines[-1] == "... and 39 more"
    assert [int(line.split("jsonl:")[1].split(":")[0]) for line in lines[:20]] == list(range(3, 23))


def test_a_file_that_is_no_bank_at_all_is_given_up_soon(tmp_path):
    with pytest.raises(BankError) as caught:
        check_bank(bank(tmp_path, HEADER, *["nonsense"] * 5000))
    assert str(caught.value).splitlines()[-1] == "... and at least 980 more"


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(BankError, match="got a folder, allowed: a bank"):
        check_bank(tmp_path)
    with pytest.raises(BankError, match=r"none\.jsonl: cannot be read \(No such file"):
        open_bank(tmp_path / "none.jsonl")


def test_open_bank_reads_the_header_only_and_rows_stop_at_the_first_bad_line(tmp_path):
    found = open_bank(bank(tmp_path, HEADER, GOOD, {**GOOD, "steps": 0, "seed": -1}, GOOD))
    rows = found.rows()
    assert next(rows)[0] == 2
    with pytest.raises(BankError) as caught:
        next(rows)
    assert [m.split(": got")[0] for m in str(caught.value).splitlines()] == [
        f"{found.path}:3: field 'steps'",
        f"{found.path}:3: field 'seed'",
    ]
    with pytest.raises(BankError, match=r"bank\.jsonl:1: the line: got an empty line"):
        open_bank(bank(tmp_path, ""))
    with pytest.raises(BankError, match=r"bank\.jsonl:1: field 'fastgen_bank': got nothing"):
        open_bank(bank(tmp_path, end=""))


def test_references_are_looked_for_in_the_refs_folder_and_beside_the_bank(home, tmp_path):
    (home / "folder" / "deep.png").write_bytes(b"png")
    path = bank(home, HEADER, {**GOOD, "ref": {"path": "deep.png"}}, {**GOOD, "ref": {"path": "good.png"}})
    with pytest.raises(BankError, match="bank.jsonl:2: field 'ref.path'"):
        check_bank(path)
    assert check_bank(path, refs=home / "folder").count == 2
    path = bank(home, {**HEADER, "defaults": {"refs": "folder"}}, {**GOOD, "ref": {"path": "deep.png"}})
    assert check_bank(path).count == 1
    with pytest.raises(BankError, match="bank.jsonl:2: field 'ref.path'"):
        check_bank(path, refs="petworld")
    with pytest.raises(ReferenceImageError, match="nowhere: no such folder"):
        check_bank(path, refs=tmp_path / "nowhere")


def test_the_caller_may_judge_references_and_rows(tmp_path):
    path = bank(
        tmp_path, HEADER, {**GOOD, "ref": {"id": "r1"}}, {**GOOD, "ref": {"id": "r2"}}, {**GOOD, "steps": 7}
    )
    with pytest.raises(BankError) as caught:
        check_bank(
            path,
            reference_exists=lambda row: "pug has r1 only" if row.ref.id == "r2" else None,
            row_check=lambda row: (
                [FieldProblem("steps", "7", "4 with this engine")] if row.steps == 7 else []
            ),
        )
    assert str(caught.value).splitlines() == [
        f"{path}:3: field 'ref': got \"r2\", allowed: a reference that exists; pug has r1 only",
        f"{path}:4: field 'steps': got 7, allowed: 4 with this engine",
    ]


MEASURE = """
import resource, sys
from fastgen.bank.read import check_bank
from fastgen.errors import BankError
check_bank(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    check_bank(sys.argv[2])
except BankError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_two_hundred_thousand_rows_take_no_memory_and_a_far_duplicate_is_found(tmp_path):
    small = bank(tmp_path, HEADER, *[{**GOOD, "id": str(i)} for i in range(1000)])
    large = tmp_path / "large.jsonl"
    with open(large, "w") as handle:
        handle.write(json.dumps(HEADER) + "\n")
        for i in range(200_000):
            handle.write(f'{{"id": "row-{7 if i == 199_990 else i}", "class": "pug", "prompt": "a pug"}}\n')
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    message, kib = done.stdout.splitlines()
    assert message == (
        f"{large}:199992: field 'id': got \"row-7\", allowed: an id that no other row has; "
        "line 9 has it already"
    )
    assert int(kib) < 16_000, "KiB more than a thousand rows take"


def test_two_ids_with_one_hash_are_no_duplicate(tmp_path, monkeypatch):
    monkeypatch.setattr("fastgen.bank.read.DuplicateFinder", lambda: DuplicateFinder(hasher=len))
    assert check_bank(bank(tmp_path, HEADER, {**GOOD, "id": "a"}, {**GOOD, "id": "b"})).count == 2
