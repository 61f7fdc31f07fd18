"""What `write_bank` writes is a bank the reader accepts, or nothing."""

import pytest

from fastgen.bank.read import open_bank
from fastgen.bank.write import write_bank
from fastgen.errors import BankError

HEADER = {"fastgen_bank": 1, "name": "pets", "classes": ["tabby cat", "pug"]}
GOOD = {"class": "pug", "prompt": "a pug"}


def test_a_written_bank_is_checked_before_it_appears(tmp_path):
    path = write_bank(
        tmp_path / "sub" / "b.jsonl", HEADER, [{**GOOD, "prompt": "Dackel – süß", "ref": {"path": "x.png"}}]
    )
    assert [r.prompt for _, r in open_bank(path).rows()] == ["Dackel – süß"]
    copy = write_bank(
        tmp_path / "copy.jsonl", open_bank(path).header, (row for _, row in open_bank(path).rows())
    )
    assert list(open_bank(copy).rows()) == list(open_bank(path).rows())
    before = path.read_bytes()
    for rows, message in [
        ([], "b.jsonl:2: the line: got the end of the file"),
        ([GOOD, {**GOOD, "class": "cow"}], "b.jsonl:3: field 'class': got \"cow\""),
        ([{**GOOD, "score": float("nan")}], "b.jsonl:2: the line: got .*not JSON compliant"),
        ([{**GOOD, "prompt": "\ud800"}], "b.jsonl:2: the line: got .*surrogates"),
        ([{**GOOD, "id": "x"}, {**GOOD, "id": "x"}], "b.jsonl:3: field 'id'"),
    ]:
        with pytest.raises(BankError, match=message):
            write_bank(path, HEADER, rows)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["b.jsonl"]
