"""The seal at the end of a shard: any changed bit shows, and no reader of HDF5 sees it."""

import random

import h5py
import pytest

from fastgen.shards.seal import LENGTH, damage_outside_images, is_intact, read_seal
from fastgen.shards.verify import verify
from tests.shards.shard_samples import make_output


@pytest.fixture
def layout(tmp_path):
    return make_output(tmp_path / "out", rows=6, shard_size=4)


def test_a_sealed_shard_is_plain_hdf5(layout):
    path = layout.shard(0, 0)
    assert is_intact(path) and len(read_seal(path).whole) == 64 and 0 < read_seal(path).start < read_seal(path).end
    assert path.read_bytes()[-LENGTH:].startswith(b"\n#fastgen-sha256:")
    with h5py.File(path) as file:
        assert file["image"].shape == (4, 16, 16, 3)


def test_a_file_that_was_opened_for_writing_has_lost_it(layout):
    path = layout.shard(0, 0)
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "mine"
    assert not is_intact(path)
    assert any("its seal is gone: it was cut off, or opened for writing" in line for line in verify(layout.out))


def test_a_file_shorter_than_a_seal_has_none(tmp_path):
    (tmp_path / "x").write_bytes(b"short")
    assert read_seal(tmp_path / "x") is None and not is_intact(tmp_path / "x")


def test_every_flipped_bit_of_every_file_is_found(layout):
    chance = random.Random(6)
    for path in (layout.shard(0, 1), layout.run, layout.plan, layout.signature):
        data = path.read_bytes()
        for _ in range(25):
            bit = chance.randrange(8 * len(data))
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            assert verify(layout.out), f"bit {bit} of {path.name}"
        path.write_bytes(data)
    assert verify(layout.out) == []


def test_every_cut_is_found(layout):
    chance = random.Random(7)
    for path in (layout.shard(0, 1), layout.run, layout.plan, layout.signature):
        data = path.read_bytes()
        for size in (0, 1, len(data) - 1, len(data) - LENGTH, *(chance.randrange(len(data)) for _ in range(4))):
            if data[:size] == data.rstrip():
                continue  # JSON without its last line feed says the same
            path.write_bytes(data[:size])
            assert verify(layout.out), f"{path.name} cut to {size} bytes"
        path.write_bytes(data)
    assert verify(layout.out) == []


def test_what_is_no_image_is_checked_before_hdf5_opens_the_file(layout):
    """A file that once kept HDF5 busy for ever: 64 zeros in its table of texts."""
    path = layout.shard(0, 0)
    data, seal = path.read_bytes(), read_seal(path)
    assert damage_outside_images(path) == ""
    for place in range(0, len(data) - LENGTH, 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        found = damage_outside_images(path)
        assert (found == "") == (seal.start <= place < seal.end)
    path.write_bytes(data[:3000] + b"inserted" + data[3000:])
    assert damage_outside_images(path) == "it is not as it was written"
