"""Two thin coordinate adapters over `PIL.ImageDraw`: picture fractions and animal units."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
FUR_TEETH = {"long": 0.055, "curly": 0.045}
"""How far, in animal units, the outline of each shaggy fur leaves the smooth one."""


def shade(colour: Sequence[int], factor: float) -> Colour:
    """Multiplies an RGB colour by `factor` and clips it to 0..255."""
    r, g, b = (min(255, max(0, int(c * factor))) for c in colour)
    return r, g, b


def mix(a: Sequence[int], b: Sequence[int], t: float) -> Colour:
    """Linear blend of two RGB colours; `t` = 0 gives `a`, 1 gives `b`."""
    r, g, bl = (int(p + (q - p) * t) for p, q in zip(a, b, strict=True))
    return r, g, bl


def luminance(colour: Sequence[int]) -> float:
    """Perceived brightness of an RGB colour, 0 to 255."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


class Painter:
    """Draws shapes given in fractions of a square picture (y grows downwards)."""

    def __init__(self, size: int, fill: Colour = (0, 0, 0)) -> None:
        self.size = size
        self.image = Image.new("RGB", (size, size), fill)
        self.draw = ImageDraw.Draw(self.image)

    def gradient(self, y0: float, y1: float, top: Colour, bottom: Colour) -> None:
        """Fills the full-width band from `y0` to `y1` with a vertical gradient."""
        n, a, b = self.size, round(y0 * self.size), round(y1 * self.size)
        ramp = np.linspace(0.0, 1.0, b - a)[:, None] * (np.array(bottom) - np.array(top)) + np.array(top)
        strip = Image.fromarray(ramp.astype(np.uint8)[:, None, :])
        self.image.paste(strip.resize((n, b - a)), (0, a))

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float = 0.0) -> None:
        """Fills an axis-aligned rectangle, with rounded corners when `radius` > 0."""
        n = self.size
        box = (x0 * n, y0 * n, max(x1, x0) * n, max(y1, y0) * n)
        if radius:
            self.draw.rounded_rectangle(box, radius * n, fill=fill)
        else:
            self.draw.rectangle(box, fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour | int) -> None:
        """Fills an axis-aligned ellipse."""
        n = self.size
        self.draw.ellipse(((x - rx) * n, (y - ry) * n, (x + rx) * n, (y + ry) * n), fill=fill)

    def polygon(self, points: Sequence[Point], fill: Colour | int) -> None:
        """Fills a polygon."""
        self.draw.polygon([(x * self.size, y * self.size) for x, y in points], fill=fill)

    def line(self, points: Sequence[Point], width: float, fill: Colour | int) -> None:
        """Draws a polyline of the given width (a fraction, too)."""
        pixels = [(x * self.size, y * self.size) for x, y in points]
        self.draw.line(pixels, fill=fill, width=max(1, round(width * self.size)), joint="curve")

    def arc(
        self, x: float, y: float, rx: float, ry: float, a: int, b: int, width: float, fill: Colour | int
    ) -> None:
        """Draws an elliptic arc from `a` to `b` degrees (clockwise from 3 o'clock)."""
        n = self.size
        box = ((x - rx) * n, (y - ry) * n, (x + rx) * n, (y + ry) * n)
        self.draw.arc(box, a, b, fill=fill, width=max(1, round(width * n)))


def blob(x: float, y: float, rx: float, ry: float, angle: float = 0.0, fur: str = "short") -> np.ndarray:
    """Outline of a possibly shaggy ellipse in animal units.

    Args:
        x, y: centre.
        rx, ry: radii before rotation.
        angle: counter-clockwise rotation in radians.
        fur: "long" gives a jagged, "curly" a scalloped outline; anything else a smooth one.

    Returns:
        float64 array (points, 2).
    """
    teeth = max(7, round((rx + ry) * 3.14 / (0.13 if fur == "long" else 0.15)))
    t = np.linspace(0.0, 2 * math.pi, teeth * 6 if fur in FUR_TEETH else 40, endpoint=False)
    phase = (t * teeth / (2 * math.pi)) % 1.0
    if fur == "long":
        bump = FUR_TEETH[fur] * (1.0 - phase)
    elif fur == "curly":
        bump = FUR_TEETH[fur] * np.sin(phase * math.pi)
    else:
        bump = np.zeros_like(t)
    u, v = (rx + bump) * np.cos(t), (ry + bump) * np.sin(t)
    c, s = math.cos(angle), math.sin(angle)
    return np.stack([x + u * c - v * s, y + u * s + v * c], axis=1)


class Pen:
    """Draws shapes given in animal units: x forwards, y upwards, (0, 0) on the ground under the animal."""

    def __init__(self, size: int, origin: Point, scale: float, facing: int) -> None:
        self.size, self.origin, self.scale, self.facing = size, origin, scale, facing
        self.image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)

    def to_pixels(self, points: np.ndarray | Sequence[Point]) -> list[Point]:
        """Maps animal units to pixel coordinates."""
        p = np.asarray(points, dtype=float)
        x = self.origin[0] + self.facing * self.scale * p[:, 0]
        return list(zip(x.tolist(), (self.origin[1] - self.scale * p[:, 1]).tolist(), strict=True))

    def polygon(self, points: np.ndarray | Sequence[Point], fill: Colour | int) -> None:
        """Fills a polygon."""
        self.draw.polygon(self.to_pixels(points), fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour | int) -> None:
        """Fills an axis-aligned ellipse."""
        s = self.scale
        cx, cy = self.origin[0] + self.facing * s * x, self.origin[1] - s * y
        self.draw.ellipse((cx - s * rx, cy - s * ry, cx + s * rx, cy + s * ry), fill=fill)

    def stroke(self, points: Sequence[Point], width: float, fill: Colour | int) -> None:
        """Draws a polyline with round ends."""
        pixels = self.to_pixels(points)
        w = max(1, round(width * self.scale))
        self.draw.line(pixels, fill=fill, width=w, joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            self.draw.ellipse((x - w / 2, y - w / 2, x + w / 2, y + w / 2), fill=fill)

    def begin_mask(self) -> ImageDraw.ImageDraw:
        """Redirects drawing into a fresh mask (draw with fill 255); returns the pen's normal target."""
        normal = self.draw
        self.mask = Image.new("L", (self.size, self.size), 0)
        self.draw = ImageDraw.Draw(self.mask)
        return normal

    def begin_coat(self, base: Colour) -> None:
        """Redirects drawing into a picture filled with `base`, later clipped by the mask."""
        self.coat = Image.new("RGB", (self.size, self.size), base)
        self.draw = ImageDraw.Draw(self.coat)

    def end_coat(self, normal: ImageDraw.ImageDraw) -> None:
        """Pastes the coat through the mask and restores the normal target."""
        box = self.mask.getbbox()
        if box:  # only the part that is covered: pasting a whole layer costs more than drawing on it
            self.image.paste(self.coat.crop(box), box, self.mask.crop(box))
        self.draw = normal
