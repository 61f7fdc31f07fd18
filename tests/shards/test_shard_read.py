"""An output folder reads as one list of rows, whatever ranks and shards made it."""

import pickle

import h5py
import numpy as np
import pytest

from fastgen.errors import OutputError
from fastgen.shards import read
from fastgen.shards.read import open_output
from fastgen.shards.schema import COLUMNS
from fastgen.shards.shard_file import ShardFile
from tests.shards.shard_samples import image_of, make_output


@pytest.mark.parametrize("world", [1, 3])
def test_rows_come_in_plan_order(tmp_path, world):
    make_output(tmp_path / "out", rows=11, world=world)
    output = open_output(tmp_path / "out")
    assert len(output) == 11 and output.classes == ("cat", "dog")
    assert output.plan_index.tolist() == list(range(11))
    assert output.labels.tolist() == [i % 2 for i in range(11)]
    assert output.good.tolist() == list(range(11))
    assert [row["id"] for row in output] == [f"row-{i}" for i in range(11)]
    assert output[7]["id"] == "row-7" and output[-1]["id"] == "row-10"
    assert [row["id"] for row in output[2:4]] == ["row-2", "row-3"]
    assert (output.images([9, 0]) == np.stack([image_of(9), image_of(0)])).all()
    assert output.column("ref_id").tolist() == [f"ref-{i % 3}" for i in range(11)]
    assert output.column("seed").dtype == np.uint64
    assert output.run is not None and output.run["counts"]["good"] == 11


def test_few_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "OPEN_FILES", 2)
    make_output(tmp_path / "out", rows=12, shard_size=2)
    output = open_output(tmp_path / "out")
    for number in (0, 11, 5, 3, 0, 8):
        assert (output.image(number) == image_of(number)).all()
        assert len(output._handles) <= 2


def test_a_file_that_took_a_shards_place_is_named(tmp_path):
    layout = make_output(tmp_path / "out", rows=3)
    output = open_output(tmp_path / "out")
    layout.shard(0, 0).unlink()
    h5py.File(layout.shard(0, 0), "w").close()
    reads = (lambda: output.image(0), lambda: output.image_shape, lambda: output.file(0).deflated_images)
    for read_it in (*reads, lambda: output[0]):
        with pytest.raises(OutputError, match=layout.shard(0, 0).name):
            read_it()


def test_a_pickled_output_opens_its_files_again(tmp_path):
    make_output(tmp_path / "out", rows=3)
    output = open_output(tmp_path / "out")
    output.image(0)
    copy = pickle.loads(pickle.dumps(output))
    assert not copy._handles and (copy.image(2) == image_of(2)).all()


def test_errors_name_what_is_there_and_what_to_do(tmp_path):
    with pytest.raises(OutputError, match="has no shards/.*fastgen run --bank"):
        open_output(tmp_path)
    (tmp_path / "x.h5").write_bytes(b"not hdf5")
    with pytest.raises(OutputError, match="cannot be read as a shard .* Delete this file and run again"):
        ShardFile(tmp_path / "x.h5")
    layout = make_output(tmp_path / "out", rows=3)
    with (
        ShardFile(layout.shard(0, 0)) as file,
        pytest.raises(OutputError, match="got column 'lamda'; allowed: .*lambda"),
    ):
        file.column("lamda")
    with pytest.raises(IndexError, match="row 3 of 3"):
        open_output(tmp_path / "out").image(3)


def test_columns_of_some_rows_are_those_rows_of_the_column(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "PIECE", 3)
    make_output(tmp_path / "out", rows=11, world=3, shard_size=2)
    output = open_output(tmp_path / "out")
    for name in COLUMNS:
        for numbers in ([10, 0, 4, 4], [7], []):
            found = output.values(name, np.array(numbers, int))
            assert found.dtype == output.column(name).dtype
            np.testing.assert_array_equal(found, output.column(name)[numbers])
    assert [row["id"] for row in output] == [f"row-{i}" for i in range(11)]  # in pieces of three
    with pytest.raises(OutputError, match="got column 'lamda'"):
        output.values("lamda", np.arange(2))
