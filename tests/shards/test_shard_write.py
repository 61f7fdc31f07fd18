"""Shards are complete or absent, hold what was written, and open with h5py alone."""

import hashlib
import json

import h5py
import numpy as np
import pytest

from fastgen.errors import FastgenError, OutputError
from fastgen.shards.schema import NUMBERS, TEXTS, Sample
from fastgen.shards.verify import identity_of
from fastgen.shards.write import OpenShard, ShardWriter, leftovers
from tests.shards.shard_samples import SIDE, image_of, make_plan, make_signature, sample_of


@pytest.fixture
def identity():
    return identity_of(make_signature())


def open_shard(folder, plan, identity):
    return OpenShard(folder / "a.h5", plan, identity, short=folder / "a-p0.h5", rank=0, shard=0)


def test_plain_h5py_reads_what_the_contract_says(tmp_path, identity):
    plan = make_plan(5)
    shard = open_shard(tmp_path, plan, identity)
    for planned in plan:
        shard.write(sample_of(planned))
    assert shard.publish() == tmp_path / "a.h5"
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["image"].dtype == np.uint8 and file["image"].shape == (5, SIDE, SIDE, 3)
        assert file["image"].chunks == (1, SIDE, SIDE, 3) and file["image"].compression == "gzip"
        assert (file["image"][3] == image_of(3)).all()
        assert file["label"].dtype == np.int64 and file["label"][:].tolist() == [0, 1, 0, 1, 0]
        assert file["seed"].dtype == np.uint64 and int(file["seed"][1]) == 2**64 - 2
        assert file["status"].dtype == np.int8
        for name in ("lambda", "clip_score", "lambda_mu", "lambda_sigma"):
            assert file[name].dtype == np.float64
        assert np.isnan(file["lambda_sigma"][0]) and file["lambda"][0] == 0.25
        assert file["prompt"].asstr()[1] == "a photo of a dog, größer 1"
        assert json.loads(file["meta"].asstr()[2])["id"] == "row-2"
        assert file["ref_id"].asstr()[:].tolist() == ["ref-0", "ref-1", "ref-2", "ref-0", "ref-1"]
        assert {*file} == {"image", *TEXTS, *NUMBERS}
        data = b"".join(image_of(i).tobytes() for i in range(5))
        assert file.attrs["sha256"] == hashlib.sha256(data).hexdigest()
        assert file.attrs["fastgen_shard"] == 1 and list(file.attrs["classes"]) == ["cat", "dog"]
        assert file.attrs["status_names"][0] == "good" and file.attrs["world"] == 1


def test_any_order_of_writing_gives_the_same_shard(tmp_path, identity):
    plan = make_plan(6)
    digests = []
    for number, order in enumerate(([0, 1, 2, 3, 4, 5], [3, 0, 5, 1, 4, 2])):
        folder = tmp_path / str(number)
        folder.mkdir()
        shard = open_shard(folder, plan, identity)
        for place in order:
            shard.write(sample_of(plan[place]))
        shard.publish()
        with h5py.File(folder / "a.h5") as file:
            digests.append(file.attrs["sha256"])
            assert file["plan_index"][:].tolist() == [0, 1, 2, 3, 4, 5]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("done", [[0, 1], [4, 1, 3], [5]])
def test_a_short_shard_holds_the_rows_that_were_written(tmp_path, identity, done):
    plan = make_plan(6)
    shard = open_shard(tmp_path, plan, identity)
    for place in done:
        shard.write(sample_of(plan[place]))
    assert shard.publish() == tmp_path / "a-p0.h5"
    with h5py.File(tmp_path / "a-p0.h5") as file:
        assert file["plan_index"][:].tolist() == sorted(done)
        assert (file["image"][:] == np.stack([image_of(i) for i in sorted(done)])).all()
        assert file.attrs["sha256"] == hashlib.sha256(file["image"][:].tobytes()).hexdigest()


def test_an_empty_shard_leaves_nothing(tmp_path, identity):
    assert open_shard(tmp_path, make_plan(2), identity).publish() is None
    assert list(tmp_path.iterdir()) == []


def test_a_failed_row_is_a_row(tmp_path, identity):
    plan = make_plan(2)
    shard = open_shard(tmp_path, plan, identity)
    shard.write(sample_of(plan[0]))
    shard.write(Sample(row=plan[1].row, image=None, status=3, reason="reference image x: there is no such file"))
    shard.publish()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["status"][:].tolist() == [0, 3] and not file["image"][1].any()
        assert file["reason"].asstr()[1] == "reference image x: there is no such file"


def test_wrong_rows_and_images_are_refused(tmp_path, identity):
    plan = make_plan(3)
    shard = open_shard(tmp_path, plan[:2], identity)
    shard.write(sample_of(plan[0]))
    with pytest.raises(FastgenError, match="row 'row-0' was already written to a.h5"):
        shard.write(sample_of(plan[0]))
    with pytest.raises(FastgenError, match="row 'row-2' is not planned for a.h5"):
        shard.write(sample_of(plan[2]))
    with pytest.raises(FastgenError, match=r"the image is uint8 \(8, 8, 3\), the shard holds uint8 \(16, 16, 3\)"):
        shard.write(Sample(row=plan[1].row, image=np.zeros((8, 8, 3), np.uint8)))


def test_the_writer_raises_the_error_of_its_thread(tmp_path, identity):
    plan = make_plan(3)
    with pytest.raises(FastgenError, match="already written"), ShardWriter(identity, rank=0) as writer:
        writer.begin(tmp_path / "a.h5", plan, short=tmp_path / "a-p0.h5", shard=0)
        writer.write(sample_of(plan[0]))
        writer.write(sample_of(plan[0]))
        for _ in range(100_000):
            writer.write(sample_of(plan[1]))
    assert list(tmp_path.iterdir()) == []


def test_leaving_on_an_error_deletes_the_open_shard_only(tmp_path, identity):
    plan = make_plan(4)
    with pytest.raises(RuntimeError, match="boom"), ShardWriter(identity, rank=0, queue_size=1) as writer:
        writer.begin(tmp_path / "a.h5", plan[:2], short=tmp_path / "a-p0.h5", shard=0)
        for planned in plan[:2]:
            writer.write(sample_of(planned))
        writer.finish()
        writer.begin(tmp_path / "b.h5", plan[2:], short=tmp_path / "b-p0.h5", shard=1)
        writer.write(sample_of(plan[2]))
        assert [path.name.split(".")[0] for path in leftovers(tmp_path)] == ["b"]
        raise RuntimeError("boom")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_a_missing_folder_is_named(tmp_path, identity):
    with pytest.raises(OutputError, match="nowhere"):
        OpenShard(tmp_path / "nowhere" / "a.h5", make_plan(1), identity, short=tmp_path / "b", rank=0, shard=0)
