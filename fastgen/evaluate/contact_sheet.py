"""A sheet of generated images, each beside its reference, with what it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from fastgen.evaluate.tiles import INK, LINE, PAPER, SOFT, empty_tile, font, tile, wrap

SIDE = 176
"""Side of a picture on the sheet, in pixels."""

TEXT, GAP, MARGIN, HEAD = 300, 10, 28, 64
LABEL = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One generated image and its story.

    Attributes:
        image: RGB, any size.
        reference: the image it was made from, RGB; None where there is none at hand.
        class_: name of its class.
        prompt: as the model got it.
        lambda_: weight of the reference, None where there is no reference.
        score: CLIP score of the reference, or None.
        bin: "low" or "high" where AGS chose lambda, else None.
    """

    image: Image.Image
    reference: Image.Image | None
    class_: str
    prompt: str
    lambda_: float | None
    score: float | None
    bin: str | None = None


def contact_sheet(cards: Sequence[Card], *, title: str, columns: int = 2) -> Image.Image:
    """Draws the cards in rows.

    The column of references is left out where no card has one.

    Args:
        cards: at least one.
        title: first line of the sheet.
        columns: cards beside each other.

    Returns:
        RGB.

    Raises:
        ValueError: if there is no card.
    """
    if not cards:
        raise ValueError("a contact sheet needs at least one card")
    columns = min(columns, len(cards))
    with_reference = any(card.reference is not None for card in cards)
    pictures = 2 if with_reference else 1
    width = pictures * (SIDE + GAP) + TEXT
    height = SIDE + (LABEL if with_reference else 0)
    rows = -(-len(cards) // columns)
    size = (
        2 * MARGIN + columns * width + (columns - 1) * MARGIN,
        HEAD + rows * (height + MARGIN) + MARGIN // 2,
    )
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for line in wrap(title, size[0] - 2 * MARGIN, font(20, bold=True), lines=1):
        draw.text((MARGIN, 22), line, INK, font(20, bold=True))
    for number, card in enumerate(cards):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (width + MARGIN), HEAD + row * (height + MARGIN)
        _draw_card(sheet, draw, card, (x, y), with_reference=with_reference)
    return sheet


def _draw_card(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    card: Card,
    at: tuple[int, int],
    *,
    with_reference: bool,
) -> None:
    x, y = at
    if with_reference:
        picture = tile(card.reference, SIDE) if card.reference else empty_tile(SIDE, "no reference")
        _picture(sheet, draw, picture, (x, y), "reference")
        x += SIDE + GAP
    _picture(sheet, draw, tile(card.image, SIDE), (x, y), "generated" if with_reference else "")
    x += SIDE + GAP + 4
    width = TEXT - 4
    heading = wrap(card.class_, width, font(16, bold=True), lines=2)
    draw.multiline_text((x, y), "\n".join(heading), INK, font(16, bold=True), spacing=3)
    y += 22 * len(heading) + 4
    draw.text((x, y), _numbers(card), INK, font(14))
    y += 26
    lines = wrap(card.prompt, width, font(13), lines=max(1, (SIDE - (y - at[1])) // 18))
    for number, line in enumerate(lines):
        draw.text((x, y + 18 * number), line, SOFT, font(13))


def _picture(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Image.Image, at: tuple[int, int], label: str
) -> None:
    x, y = at
    sheet.paste(picture, at)
    draw.rectangle((x - 1, y - 1, x + SIDE, y + SIDE), outline=LINE)
    if label:
        draw.text((x + SIDE / 2, y + SIDE + LABEL / 2 + 2), label, SOFT, font(11), "mm")


def _numbers(card: Card) -> str:
    parts = ["no λ" if card.lambda_ is None else f"λ {card.lambda_:.2f}"]
    if card.score is not None:
        parts.append(f"score {card.score:.2f}")
    if card.bin is not None:
        parts.append(f"{card.bin} bin")
    return "   ".join(parts)
