"""Sizes and content of the sheets that PIL draws."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from fastgen.evaluate.contact_sheet import SIDE, Card, contact_sheet
from fastgen.evaluate.lambda_strip import LambdaStrip, lambda_strips
from fastgen.evaluate.tiles import PAPER, empty_tile, font, tile, wrap

RED, BLUE = Image.new("RGB", (64, 64), (200, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 200))


def card(**changes):
    settings = {
        "image": RED, "reference": BLUE, "class_": "Basset Hound", "prompt": "a photo of a dog " * 40,
        "lambda_": 0.25, "score": 0.8, "bin": "high",
    }  # fmt: skip
    return Card(**settings | changes)


def share(image, colour):
    pixels = np.asarray(image).reshape(-1, 3)
    return (np.abs(pixels.astype(int) - colour).max(1) < 12).sum()


def test_pictures_are_at_least_160_pixels_and_both_are_there():
    sheet = contact_sheet([card() for _ in range(5)], title="five")
    assert SIDE >= 160
    assert share(sheet, (200, 0, 0)) == pytest.approx(5 * SIDE**2, rel=0.02)
    assert share(sheet, (0, 0, 200)) == pytest.approx(5 * SIDE**2, rel=0.02)


def test_sheet_grows_with_the_number_of_cards():
    small, large = (contact_sheet([card() for _ in range(n)], title="t") for n in (2, 3))
    assert large.width == small.width
    assert large.height > small.height + SIDE
    assert contact_sheet([card()], title="t").width < small.width


def test_without_references_their_column_is_left_out():
    narrow = contact_sheet([card(reference=None)], title="t")
    assert narrow.width < contact_sheet([card()], title="t").width - SIDE
    mixed = contact_sheet([card(reference=None), card()], title="t")
    assert share(mixed, (0, 0, 200)) == pytest.approx(SIDE**2, rel=0.05)


def test_text_stays_in_its_column():
    columns = 2
    sheet = np.asarray(contact_sheet([card(prompt="W" * 400) for _ in range(2)], title="t", columns=columns))
    assert (sheet[:, -20:] == PAPER).all()


def test_a_sheet_needs_cards():
    with pytest.raises(ValueError, match="at least one card"):
        contact_sheet([], title="t")


@pytest.mark.parametrize("lambda_", [None, 0.0])
def test_rows_without_lambda_score_or_bin_are_drawn(lambda_):
    assert contact_sheet([card(lambda_=lambda_, score=None, bin=None)], title="t").width > SIDE


def test_tile_keeps_the_shape():
    wide = tile(Image.new("RGB", (100, 50), (0, 0, 0)), 80)
    assert wide.size == (80, 80)
    assert share(wide, (0, 0, 0)) == 80 * 40
    assert empty_tile(80, "no reference").size == (80, 80)


def test_wrap_fits_and_ends_in_an_ellipsis():
    typeface = font(13)
    lines = wrap("an unreasonablylongwordthatdoesnotfitonaline and more words " * 3, 120, typeface)
    assert all(typeface.getlength(line) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "").startswith("anunreasonablylongword")
    short = wrap("many words " * 30, 120, typeface, lines=2)
    assert len(short) == 2 and short[-1].endswith("…") and typeface.getlength(short[-1]) <= 120
    assert wrap("", 120, typeface) == []


def test_font_has_greek_letters():
    typeface = font(14)
    assert isinstance(typeface, ImageFont.FreeTypeFont)
    assert typeface.getmask("λ").getbbox() != typeface.getmask("\uffff").getbbox()


def test_strip_shows_reference_and_every_lambda():
    strip = LambdaStrip(reference=BLUE, prompt="a photo", lambdas=(0, 0.5, 1), images=[RED] * 3)
    one, two = lambda_strips([strip]), lambda_strips([strip, strip])
    assert two.height > one.height + 160 and two.width == one.width
    assert share(one, (200, 0, 0)) == pytest.approx(3 * 176**2, rel=0.02)
    with pytest.raises(ValueError, match="2 lambdas for 1 images"):
        lambda_strips([LambdaStrip(reference=BLUE, prompt="", lambdas=(0, 1), images=[RED])])
