"""Which images to train on, as a file: what it keeps, and what it refuses."""

import numpy as np
import pytest

from fastgen.errors import FastgenError
from fastgen.files import read_jsonl
from fastgen.shards.read import open_output
from fastgen.shards.selection import select, write_selection
from tests.output_folder import make_row, write_output


@pytest.fixture
def output(tmp_path):
    return open_output(write_output(tmp_path / "out", [make_row(i) for i in range(6)], per_shard=4))


def lines_of(output, kept):
    ids, hashes = output.column("row_id"), output.column("image_sha256")
    return [{"id": ids[i], "image_sha256": hashes[i].decode(), "keep": i in kept} for i in range(len(output))]


def test_it_keeps_what_its_lines_say_whatever_their_order(output, tmp_path):
    path = write_selection(tmp_path / "s.jsonl", {"by": "hand"}, reversed(lines_of(output, {1, 3, 4})))
    assert next(read_jsonl(path)) == {"fastgen_filter": 1, "by": "hand"}
    assert select(output, np.arange(6), path).tolist() == [1, 3, 4]
    assert select(output, np.array([0, 3, 5]), path).tolist() == [3]


def test_hashes_may_be_missing_in_a_file_that_somebody_else_wrote(output, tmp_path):
    lines = [{"id": line["id"], "keep": line["keep"]} for line in lines_of(output, {2})]
    assert select(output, np.arange(6), write_selection(tmp_path / "s.jsonl", {}, lines)).tolist() == [2]


def test_a_file_for_other_images_is_refused(output, tmp_path):
    lines = lines_of(output, {1})
    missing = write_selection(tmp_path / "a.jsonl", {}, lines[:-1])
    with pytest.raises(FastgenError, match="row 'row-5' of .* is not in it; make it again: fastgen filter"):
        select(output, np.arange(6), missing)
    assert select(output, np.arange(5), missing).tolist() == [1], "rows that nobody asks for may be missing"
    lines[2]["image_sha256"] = "0" * 64
    with pytest.raises(FastgenError, match="row 'row-2' of .* has another image now"):
        select(output, np.arange(6), write_selection(tmp_path / "b.jsonl", {}, lines))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", ":1: got null, allowed: a header"),
        ('{"fastgen_bank": 1}\n', ":1: got .*allowed: a header"),
        ('{"fastgen_filter": 2}\n', ":1: got .*allowed: a header"),
        ('{"fastgen_filter": 1}\n{"id": "row-0"}\n', ':2: got .*allowed: .*"keep": true or false'),
        ('{"fastgen_filter": 1}\n{"id": "a", "keep": 1}\n', ":2: got"),
        ('{"fastgen_filter": 1}\n{"id": "a", "keep": true}\n{"id": "a", "keep": true}\n', ":3: id 'a' is there twice"),
        ("no json\n", ":1: not a line of JSON"),
    ],
)
def test_a_file_that_is_no_selection_is_refused_with_its_line(output, tmp_path, text, message):
    (tmp_path / "s.jsonl").write_text(text)
    with pytest.raises(FastgenError, match=message):
        select(output, np.arange(6), tmp_path / "s.jsonl")
