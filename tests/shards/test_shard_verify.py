"""verify finds every kind of damage and names it."""

import json
import shutil
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from fastgen.errors import OutputError
from fastgen.shards.seal import add_seal
from fastgen.shards.verify import verify
from tests.shards.shard_samples import make_output


@pytest.fixture
def layout(tmp_path):
    return make_output(tmp_path / "out", rows=10, shard_size=4)


@contextmanager
def edited(path):
    """A shard opened for writing, and sealed again afterwards: what is found is not found by the seal."""
    with h5py.File(path, "r+") as file:
        yield file
    add_seal(path, start=0, end=0)


def only(problems):
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize("world", [1, 3])
def test_a_finished_run_is_fine(tmp_path, world):
    make_output(tmp_path / "out", rows=10, world=world)
    assert verify(tmp_path / "out") == []


def test_no_output_folder(tmp_path):
    with pytest.raises(OutputError, match="no such folder; give the folder that fastgen run wrote"):
        verify(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=r"has no plan\.json"):
        verify(tmp_path)


def test_a_changed_pixel(layout):
    with edited(layout.shard(0, 1)) as file:
        image = file["image"][2]
        image[0, 0, 0] ^= 1
        file["image"][2] = image
    problems = verify(layout.out)
    assert problems[0] == "00001-r000.h5: images that are not as they were written: 'row-6'"
    assert "sha256 of the image data is" in problems[1] and len(problems) == 2


def test_a_flipped_byte_anywhere_in_the_image_data(layout):
    with h5py.File(layout.shard(0, 0)) as file:
        chunk = file["image"].id.get_chunk_info(1)
    data = bytearray(layout.shard(0, 0).read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 0x10
    layout.shard(0, 0).write_bytes(data)
    problems = verify(layout.out)
    assert any("00000-r000.h5" in p and ("row-1" in p or "row 1" in p) for p in problems), problems


def test_a_cut_file(layout):
    data = layout.shard(0, 0).read_bytes()
    layout.shard(0, 0).write_bytes(data[: len(data) // 2])
    problems = verify(layout.out)
    assert "00000-r000.h5: cannot be read as a shard" in problems[0]
    assert "rows missing: 'row-0', 'row-1', 'row-2', 'row-3'" in problems


def test_a_missing_shard(layout):
    layout.shard(0, 1).unlink()
    problems = verify(layout.out)
    assert "rows missing: 'row-4', 'row-5', 'row-6', 'row-7'" in problems
    assert "00001-r000.h5: run.json lists this shard, but it is gone" in problems


def drop_row(path, place):
    """Remove one row from a shard and make its hash right again."""
    import hashlib

    with edited(path) as file:
        keep = [i for i in range(file["image"].shape[0]) if i != place]
        images = file["image"][keep]
        for name in list(file):
            data = file[name][:][keep]
            dtype = file[name].dtype
            del file[name]
            file.create_dataset(name, data=data, dtype=dtype)
        file.attrs["sha256"] = hashlib.sha256(images.tobytes()).hexdigest()


def test_a_missing_row(layout):
    drop_row(layout.shard(0, 0), 1)
    problems = verify(layout.out)
    assert "rows missing: 'row-1'" in problems
    assert "00000-r000.h5: run.json has other rows or another sha256 for it" in problems


def test_a_doubled_row(layout):
    shutil.copy(layout.shard(0, 2), layout.shard(0, 2, 0))
    assert "rows there more than once: 'row-8', 'row-9'" in verify(layout.out)


def test_a_row_of_another_rank_or_shard(layout):
    shutil.copy(layout.shard(0, 2), layout.shard(0, 0, 1))
    problems = verify(layout.out)
    assert any("00000-r000-p1.h5: attribute shard is 2, this run has 0" in p for p in problems)
    assert any("belong to another rank or shard: 'row-8', 'row-9'" in p for p in problems)


def test_a_shard_of_another_run(layout, tmp_path):
    other = make_output(tmp_path / "other", rows=10, shard_size=5)
    shutil.copy(other.shard(0, 0), layout.shard(0, 3))
    problems = verify(layout.out)
    assert any(p.startswith("00003-r000.h5: attribute plan_id is") for p in problems)


def test_a_changed_column(layout):
    with edited(layout.shard(0, 0)) as file:
        file["label"][1] = 0
    assert only(verify(layout.out)) == "00000-r000.h5: row 'row-1': label not as in meta"


def test_a_foreign_row(layout):
    with edited(layout.shard(0, 0)) as file:
        row = json.loads(file["meta"].asstr()[0])
        file["meta"][0] = json.dumps({**row, "prompt": "something else"})
    problems = verify(layout.out)
    assert "00000-r000.h5: rows that plan.jsonl does not have: 'row-0' (place 0)" in problems
    assert "rows missing: 'row-0'" in problems


def test_a_wrong_image_type(layout):
    with edited(layout.shard(0, 0)) as file:
        images = file["image"][:]
        del file["image"]
        file.create_dataset("image", data=images.astype(np.int16))
    assert "00000-r000.h5: image is int16 (4, 16, 16, 3); it must be uint8 (N, H, W, 3)" in verify(layout.out)


def test_an_unfinished_run(tmp_path):
    layout = make_output(tmp_path / "out", rows=6, world=2, finish=False)
    assert only(verify(layout.out)) == (
        "run.json is missing: the run is not finished (no report of rank 0, 1); run the same command again"
    )


def test_leftovers(layout):
    (layout.shards / "00007-r000.h5.part").write_bytes(b"")
    (layout.shards / "copy of 1.h5").write_bytes(b"")
    problems = verify(layout.out)
    assert problems[0].startswith("00007-r000.h5.part: left by a run that was killed")
    assert problems[1] == "copy of 1.h5: not the name of a shard; move it out of shards/"
