"""The merged file says what the shards say, read with h5py alone, and says so when they are gone."""

import resource
import shutil

import h5py
import numpy as np
import pytest

from fastgen.errors import OutputError
from fastgen.shards.merge import merge, open_merged
from fastgen.shards.read import open_output
from fastgen.shards.schema import COLUMNS, TEXTS
from tests.output_folder import make_row, write_output
from tests.shards.shard_samples import make_output


def assert_equal(path, out):
    """Every dataset of the file equals the folder's."""
    output = open_output(out)
    wanted = {name: output.column(name) for name in COLUMNS} | {"image": output.images(range(len(output)))}
    classes = output.classes
    del output  # closes its files: HDF5 refuses to open a file twice with other settings for locks
    with h5py.File(path, "r") as file:
        assert set(file) == {"shards", *wanted}
        for name, values in wanted.items():
            found = file[name].asstr()[()] if name in TEXTS else file[name][()]
            assert found.dtype == values.dtype and file[name].is_virtual
            np.testing.assert_array_equal(found, values)  # NaN equals NaN
        assert tuple(file.attrs["classes"]) == classes and file.attrs["plan_id"]


@pytest.mark.parametrize("world, rows", [(1, 11), (3, 11), (4, 3)])
def test_rows_come_in_plan_order_whatever_wrote_them(tmp_path, world, rows, monkeypatch):
    make_output(tmp_path / "out", rows=rows, world=world, shard_size=2)
    assert merge(tmp_path / "out", to=tmp_path / "all.h5") == tmp_path / "all.h5"
    monkeypatch.chdir("/")  # not relative to where the reader stands
    assert_equal(tmp_path / "all.h5", tmp_path / "out")
    output = open_output(tmp_path / "out")
    output.image(0)
    with open_merged(tmp_path / "all.h5") as file:  # beside an open folder, too
        assert len(file["label"]) == rows and (file["image"][0] == output.image(0)).all()


def test_an_unfinished_run_gives_the_rows_that_are_there(tmp_path):
    layout = make_output(tmp_path / "out", rows=11, world=2, shard_size=2)
    layout.shard(1, 0).unlink()
    merge(tmp_path / "out", to=tmp_path / "all.h5")
    assert_equal(tmp_path / "all.h5", tmp_path / "out")


def test_file_and_folder_move_together(tmp_path):
    make_output(tmp_path / "a" / "out", rows=5)
    merge(tmp_path / "a" / "out", to=tmp_path / "a" / "out" / "all.h5")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert_equal(tmp_path / "b" / "out" / "all.h5", tmp_path / "b" / "out")


def test_a_shard_that_is_gone_is_said_and_never_taken_for_good(tmp_path):
    layout = make_output(tmp_path / "out", rows=8)
    merge(layout.out, to=tmp_path / "all.h5")
    layout.shard(0, 1).rename(tmp_path / "away.h5")
    with pytest.raises(OutputError, match="00001-r000.h5 is gone; move all.h5 and the output folder together"):
        open_merged(tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as file:  # whoever does not ask sees no good row there
        assert file["status"][:].tolist() == [0] * 4 + [-1] * 4
        assert (file["label"][4:] == -1).all() and (file["plan_index"][4:] == -1).all()
        assert np.isnan(file["lambda"][4:]).all() and file["row_id"].asstr()[5] == ""
    shutil.copy(layout.shard(0, 0), layout.shard(0, 1))
    with pytest.raises(OutputError, match="00001-r000.h5 is another one now"):
        open_merged(tmp_path / "all.h5")


def test_too_few_files_may_be_open_is_an_error_and_a_low_limit_is_raised(tmp_path, monkeypatch):
    make_output(tmp_path / "out", rows=4, shard_size=2)
    merge(tmp_path / "out", to=tmp_path / "all.h5")
    asked = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: asked.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10, 20))
    with pytest.raises(OutputError, match=r"2 shards may have to be open at once, this process may open 20 files"):
        open_merged(tmp_path / "all.h5")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10, 100))
    open_merged(tmp_path / "all.h5").close()
    assert asked == [(66, 100)]


def test_what_cannot_be_merged_is_refused(tmp_path):
    with pytest.raises(OutputError, match="has no shards"):
        merge(tmp_path, to=tmp_path / "all.h5")
    layout = make_output(tmp_path / "out", rows=8)
    with pytest.raises(OutputError, match="lies among the shards"):
        merge(layout.out, to=layout.shards / "99999-r000.h5")
    with pytest.raises(OutputError, match="cannot be written"):
        merge(layout.out, to="/proc/all.h5")
    shutil.copy(layout.shard(0, 0), layout.shard(1, 0))
    with pytest.raises(OutputError, match="rows are there more than once"):
        merge(layout.out, to=tmp_path / "all.h5")
    other = make_output(tmp_path / "other", rows=12)
    other.shard(0, 2).rename(layout.shard(1, 0))
    with h5py.File(layout.shard(1, 0), "r+") as file:
        file.attrs["plan_id"] = "x"
    with pytest.raises(OutputError, match="00000-r001.h5: (is of another run|cannot be read)"):
        merge(layout.out, to=tmp_path / "all.h5")
    (tmp_path / "x.h5").write_bytes(b"no")
    for path in (tmp_path / "x.h5", tmp_path / "none.h5", layout.shard(0, 0)):
        with pytest.raises(OutputError, match="not a file of fastgen merge"):
            open_merged(path)


def test_shards_of_an_even_plan_need_one_mapping_each(tmp_path):
    """A view of many ranks stays small: rows that go forward in even steps are one selection."""
    write_output(tmp_path / "out", [make_row(i) for i in range(40)], per_shard=10)
    make_output(tmp_path / "ranks", rows=40, world=4, shard_size=5)
    for name, shards in (("out", 4), ("ranks", 8)):
        merge(tmp_path / name, to=tmp_path / f"{name}.h5")
        with h5py.File(tmp_path / f"{name}.h5") as file:
            assert len(file["image"].virtual_sources()) == shards
