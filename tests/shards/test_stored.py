"""Compressed images: the same pixels, whatever wrote the file."""

import h5py
import numpy as np
import pytest

from fastgen.errors import OutputError
from fastgen.shards.shard_file import ShardFile
from fastgen.shards.stored import stored_image
from tests.output_folder import make_row, write_output
from tests.shards.shard_samples import image_of, make_output


def test_a_shard_gives_its_own_bytes(tmp_path):
    layout = make_output(tmp_path / "out", rows=4)
    with ShardFile(layout.shard(0, 0)) as file:
        stored = [stored_image(file, place) for place in range(4)]
        assert stored[2].data == file.deflated_images.read_direct_chunk((2, 0, 0, 0))[1]
    for place, one in enumerate(stored):  # the file is closed
        pixels = one.decode()
        assert (pixels == image_of(place)).all() and pixels.flags.writeable and pixels.dtype == np.uint8


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}, {"chunks": (2, 8, 8, 3)}])
def test_other_filters_and_chunks_are_read_too(tmp_path, options):
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    out = write_output(tmp_path / "out", [make_row(i) for i in range(4)])
    path = out / "shards" / "00000-r000.h5"
    with h5py.File(path, "r+") as file:
        del file["image"]
        file.create_dataset("image", data=images, **options)
    with ShardFile(path) as file:
        assert all((stored_image(file, place).decode() == images[place]).all() for place in range(4))


def test_damage_is_named(tmp_path):
    out = write_output(tmp_path / "out", [make_row(i) for i in range(4)], compression="gzip")
    path = out / "shards" / "00000-r000.h5"
    with h5py.File(path, "r+") as file:
        file["image"].id.write_direct_chunk((1, 0, 0, 0), b"x" * 50)
        file["image"].id.write_direct_chunk((2, 0, 0, 0), b"x\x9c" * 50)
    with ShardFile(path) as file:
        for place in (1, 2):
            with pytest.raises(OutputError, match=f"00000-r000.h5: the image of row {place} is damaged"):
                stored_image(file, place).decode()
