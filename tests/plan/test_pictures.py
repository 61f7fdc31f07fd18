"""Every kind of image file becomes plain RGB or an error that names the file."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fastgen.errors import ReferenceImageError
from fastgen.plan import pictures
from fastgen.plan.pictures import open_picture

GRADIENT = np.stack(np.broadcast_arrays(np.arange(24)[:, None] * 10, np.arange(16) * 15, 77), -1).astype(np.uint8)


def save(picture, path, **options):
    picture.save(path, **options)
    return path


def opened(path):
    found = open_picture(path)
    assert found.mode == "RGB"
    return np.asarray(found)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.PNG"])
def test_lossless_formats_keep_every_pixel_and_the_size(tmp_path, name):
    np.testing.assert_array_equal(opened(save(Image.fromarray(GRADIENT), tmp_path / name)), GRADIENT)


def test_the_content_counts_not_the_name(tmp_path):
    path = save(Image.fromarray(GRADIENT), tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(opened(path), GRADIENT)


@pytest.mark.parametrize("mode", ["L", "1", "P", "YCbCr", "CMYK"])
def test_other_modes_are_converted(tmp_path, mode):
    picture = Image.fromarray(GRADIENT).convert(mode)
    end = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    found = opened(save(picture, tmp_path / f"a.{end}")).astype(int)
    assert found.shape == (24, 16, 3)
    want = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(found - want).mean() < (6 if end == "jpg" else 1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(tmp_path, mode):
    if mode == "P":
        picture = Image.new("P", (8, 8), 0)
        picture.putpalette([200, 0, 0, 0, 0, 200])
        picture.putpixel((3, 4), 1)
        path = save(picture, tmp_path / "a.png", transparency=0)
        expected = (0, 0, 200)
    else:
        layer = np.zeros((8, 8, len(mode)), np.uint8)
        layer[4, 3] = (10, 20, 30, 255) if mode == "RGBA" else (10, 255)
        layer[0, 0] = (0, 0, 0, 128) if mode == "RGBA" else (0, 128)
        path = save(Image.fromarray(layer, mode=None), tmp_path / "a.png")
        expected = (10, 20, 30) if mode == "RGBA" else (10, 10, 10)
    found = opened(path)
    assert tuple(found[4, 3]) == expected
    assert tuple(found[7, 7]) == (255, 255, 255)
    if mode != "P":
        assert abs(int(found[0, 0, 0]) - 127) <= 1


def test_sixteen_bits_become_eight(tmp_path):
    deep = (np.arange(256, dtype=np.uint16)[None] * 257).repeat(4, 0)
    for name in ("a.png", "a.tif"):
        found = opened(save(Image.fromarray(deep), tmp_path / name))
        np.testing.assert_array_equal(found[..., 1], np.arange(256)[None].repeat(4, 0))


def test_thirty_two_bits_and_floats_are_refused(tmp_path):
    for values, said in (
        (np.full((4, 4), 70_000, np.int32), "32 bits"),
        (np.ones((4, 4), np.float32), "floating"),
    ):
        path = save(Image.fromarray(values), tmp_path / "a.tif")
        with pytest.raises(ReferenceImageError, match=f"a.tif: got pixels .*{said}.*8 bits per channel"):
            open_picture(path)


@pytest.mark.parametrize("end", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, end):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if end == "webp" else {}
    path = save(frames[0], tmp_path / f"a.{end}", save_all=True, append_images=frames[1:], **options)
    assert np.abs(opened(path).astype(int) - (250, 0, 0)).max() <= 8


def test_the_exif_entry_turns_the_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(Image.fromarray(GRADIENT), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(opened(path), np.rot90(GRADIENT, -1))


def test_a_file_that_is_cut_off_at_any_place_is_an_error_or_whole(tmp_path):
    for end in ("jpg", "png", "webp", "gif"):
        data = save(Image.fromarray(GRADIENT.repeat(4, 0)), tmp_path / f"a.{end}").read_bytes()
        for length in range(0, len(data) * 2 // 3, max(1, len(data) // 23)):
            path = tmp_path / f"cut.{end}"
            path.write_bytes(data[:length])
            with pytest.raises(ReferenceImageError, match=f"cut.{end}: got .*; allowed: PNG"):
                open_picture(path)


def test_damaged_bytes_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(0)
    for end in ("jpg", "png", "webp", "gif", "tif", "bmp"):
        data = bytearray(save(Image.fromarray(GRADIENT), tmp_path / f"a.{end}").read_bytes())
        for _ in range(20):
            hurt = bytearray(data)
            for place in rng.integers(0, len(hurt), 6):
                hurt[place] = rng.integers(256)
            path = tmp_path / f"hurt.{end}"
            path.write_bytes(hurt)
            try:
                open_picture(path)
            except ReferenceImageError as error:
                assert f"hurt.{end}" in str(error)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for width, height in ((10_001, 10_000), (60_000, 60_000)):
        size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        body = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
        path = tmp_path / "bomb.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + size + body)
        with pytest.raises(ReferenceImageError, match="bomb.png: got .*at most 100 megapixels; give a smaller copy"):
            open_picture(path)


def test_the_limit_itself_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 24 * 16)
    open_picture(save(Image.fromarray(GRADIENT), tmp_path / "a.png"))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 24 * 16 - 1)
    with pytest.raises(ReferenceImageError, match="16 x 24 pixels"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("data", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>"])
def test_no_image_is_called_so(tmp_path, data):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(ReferenceImageError, match="a.png: got no image; allowed: PNG, JPEG"):
        open_picture(path)


def test_missing_files_and_folders_are_called_so(tmp_path):
    with pytest.raises(ReferenceImageError, match="gone.png: there is no such file"):
        open_picture(tmp_path / "gone.png")
    with pytest.raises(ReferenceImageError, match="cannot be read"):
        open_picture(tmp_path)
