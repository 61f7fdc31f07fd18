"""Draws the head of an animal: a three-quarter front view, so that ears, muzzle and face pattern all show."""

import numpy as np

from fastgen.petworld.breeds import Breed
from fastgen.petworld.drawing import Colour, Pen, blob, luminance, mix, shade

MUZZLE_SHAPE = {"flat": (0.10, 0.46, 0.30), "short": (0.22, 0.42, 0.31), "medium": (0.44, 0.36, 0.28),
                "long": (0.68, 0.31, 0.25)}  # fmt: skip
"""Forward reach of the snout's tip, half width and half height, all relative to the head's radius."""

FACING_SHIFT = 0.12
"""How far eyes and markings move towards the facing side, relative to the head's radius."""


def dark_line(colour: Colour) -> Colour:
    """An outline colour that is visible against `colour` itself: darker, or lighter for a black coat."""
    return shade(colour, 0.62) if luminance(colour) > 60 else mix(colour, (150, 150, 165), 0.33)


class Head:
    """Draws one head with a pen; `x`, `y` and `r` are its centre and radius in animal units."""

    def __init__(self, pen: Pen, breed: Breed, x: float, y: float, r: float) -> None:
        self.pen, self.breed, self.x, self.y, self.r = pen, breed, x, y, r
        self.colour = breed.main
        if breed.pattern == "patches" and breed.face == "blaze":
            self.colour = breed.second
        if breed.face == "hood":
            self.colour = breed.third if luminance(breed.third) < 200 else breed.second
        self.fur = "short" if breed.fur == "curly" and breed.topknot else breed.fur
        wide = 1.06 if breed.muzzle in ("flat", "short") else 0.94
        self.rx, self.ry = (1.06 * r, 0.9 * r) if breed.species == "cat" else (wide * r, 0.95 * r)

    def _at(self, u: float, v: float) -> tuple[float, float]:
        return self.x + u * self.r, self.y + v * self.r

    def _oval(self, u: float, v: float, ru: float, rv: float, fill: Colour) -> None:
        self.pen.ellipse(self.x + u * self.r, self.y + v * self.r, ru * self.r, rv * self.r, fill)

    def _poly(self, points: list[tuple[float, float]], fill: Colour) -> None:
        self.pen.polygon([self._at(u, v) for u, v in points], fill)

    def draw(self) -> None:
        """Draws everything, from the back (mane) to the front (nose)."""
        b, r = self.breed, self.r
        if b.ruff:
            self.pen.polygon(blob(self.x - 0.08 * r, self.y - 0.28 * r, 1.42 * r, 1.3 * r, 0.0, "long"),
                             dark_line(b.ruff))  # fmt: skip
            self.pen.polygon(
                blob(self.x - 0.08 * r, self.y - 0.28 * r, 1.34 * r, 1.22 * r, 0.0, "long"), b.ruff
            )
        upright = b.ears not in ("floppy", "long")
        shaggy = self.fur in ("long", "curly")  # their ears go in front, or the fur would hide them
        if upright and not shaggy:
            self._upright_ears()
        self.pen.polygon(
            blob(self.x, self.y, self.rx * 1.07, self.ry * 1.07, 0.0, self.fur), dark_line(self.colour)
        )
        normal = self.pen.begin_mask()
        self.pen.polygon(blob(self.x, self.y, self.rx, self.ry, 0.0, self.fur), 255)
        self.pen.begin_coat(self.colour)
        self._markings()
        self.pen.end_coat(normal)
        if upright and shaggy:
            self._upright_ears()
        elif not upright:
            self._hanging_ears()
        if b.topknot:
            self.pen.polygon(
                blob(self.x, self.y + 0.78 * r, 0.52 * r, 0.36 * r, 0.0, "curly"), dark_line(b.topknot)
            )
            self.pen.polygon(blob(self.x, self.y + 0.76 * r, 0.46 * r, 0.31 * r, 0.0, "curly"), b.topknot)
        self._eyes()
        self._muzzle()

    def _upright_ears(self) -> None:
        b = self.breed
        colour = b.ear_colour or (b.second if b.face in ("points", "vee") else self.colour)
        inner = (
            mix(colour, (236, 150, 150), 0.6) if luminance(colour) > 70 else mix(colour, (150, 90, 96), 0.5)
        )
        k = b.ear_size
        for side in (-1, 1):
            if b.ears in ("pointed", "tufted"):
                tip = (side * (0.62 + 0.26 * k), 0.62 + 0.78 * k)
                self._poly([(side * 1.06, 0.18), tip, (side * 0.14, 0.78)], dark_line(colour))
                self._poly([(side * 1.0, 0.2), (tip[0], tip[1] - 0.1), (side * 0.22, 0.76)], colour)
                self._poly(
                    [(side * 0.86, 0.5), (tip[0] - side * 0.04, tip[1] - 0.3), (side * 0.42, 0.78)], inner
                )
                if b.ears == "tufted":
                    low, high = self._at(tip[0], tip[1] - 0.2), self._at(tip[0] + side * 0.1, tip[1] + 0.3)
                    self.pen.stroke([low, high], 0.16 * self.r, shade(b.second, 0.7))
            elif b.ears == "bat":
                centre = self._at(side * 0.86, 0.72)
                for grow, fill in ((0.06, dark_line(colour)), (0.0, colour), (-0.17, inner)):
                    self.pen.polygon(
                        blob(*centre, (0.74 * k + grow) * self.r, (0.42 + grow) * self.r, 1.57 - side * 0.6),
                        fill,
                    )
            elif b.ears == "folded":
                self._poly([(side * 1.02, 0.3), (side * 0.72, 0.98), (side * 0.24, 0.84), (side * 0.6, 0.42)],
                           dark_line(colour))  # fmt: skip
                self._poly([(side * 0.94, 0.42), (side * 0.7, 0.88), (side * 0.32, 0.8)], colour)
            else:  # button: upright base, tip folded over outwards
                self._poly([(side * 0.34, 0.74), (side * 0.7, 1.2 * k**0.5), (side * 1.34, 0.5),
                            (side * 0.92, 0.3)], dark_line(colour))  # fmt: skip
                self._poly([(side * 0.42, 0.76), (side * 0.72, 1.1 * k**0.5), (side * 1.24, 0.52),
                            (side * 0.9, 0.4)], colour)  # fmt: skip

    def _hanging_ears(self) -> None:
        b = self.breed
        colour = b.ear_colour or (
            b.second if b.pattern in ("patches", "points") else shade(self.colour, 0.85)
        )
        length = (0.92 if b.ears == "long" else 0.6) * b.ear_size
        width = 0.36 if b.ears == "long" else 0.33
        for side in (-1, 1):
            x, y = self._at(side * 0.98, 0.48 - length)
            tilt = 1.57 + side * 0.14
            fur = b.fur if b.ears == "long" or b.fur == "long" else "short"
            for grow, fill in ((0.07, dark_line(colour)), (0.0, colour)):
                self.pen.polygon(
                    blob(x, y, (length + grow) * self.r, (width + grow) * self.r, tilt, fur), fill
                )

    def _markings(self) -> None:
        b, f = self.breed, FACING_SHIFT
        if b.pattern == "tabby":
            for u in (-0.35, 0.0, 0.35):
                self.pen.stroke([self._at(u + f, 0.42), self._at(u * 1.5 + f, 1.1)], 0.17 * self.r, b.second)
            for side in (-1, 1):
                self.pen.stroke(
                    [self._at(side * 0.7, -0.1), self._at(side * 1.2, -0.22)], 0.14 * self.r, b.second
                )
        elif b.pattern in ("spots", "rosettes"):
            for u, v in ((-0.34, 0.68), (0.14, 0.56), (0.5, 0.74), (-0.85, -0.1), (0.95, -0.2)):
                self._oval(u + f, v, 0.12, 0.12, b.second)
        elif b.pattern in ("brindle", "shaded"):
            for u in (-0.5, 0.0, 0.5):
                self.pen.stroke([self._at(u, 0.45), self._at(u + 0.25, 1.0)], 0.1 * self.r, b.second)
        self._face_pattern()
        if b.wrinkles:
            for v in (0.46, 0.66):
                fold = [self._at(-0.4 + f, v), self._at(f, v + 0.1), self._at(0.4 + f, v)]
                self.pen.stroke(fold, 0.07 * self.r, shade(b.main, 0.72))

    def _face_pattern(self) -> None:
        b, f = self.breed, FACING_SHIFT
        if b.face == "mask":
            self._oval(f * 2.2, -0.34, 0.86, 0.62, b.second)
            for side in (-1, 1):
                self._oval(side * 0.44 + f, 0.08, 0.3, 0.28, b.second)
        elif b.face == "points":
            self._oval(f * 1.4, -0.16, 0.7, 0.72, b.second)
        elif b.face == "vee":
            self._poly(
                [(-1.3, 1.3), (-1.3, -0.3), (f - 0.1, 0.62), (f + 0.1, 0.62), (1.3, -0.3), (1.3, 1.3)],
                b.second,
            )
        elif b.face == "blaze":
            self._poly([(f - 0.13, 1.2), (f + 0.13, 1.2), (f + 0.2, 0.1), (f + 0.62, -1.1), (f - 0.5, -1.1),
                        (f - 0.2, 0.1)], (246, 243, 238))  # fmt: skip
        elif b.face == "tan":
            for side in (-1, 1):
                self._oval(side * 0.42 + f, 0.44, 0.2, 0.15, b.second)
                self._oval(side * 0.8, -0.52, 0.4, 0.34, b.second)
        elif b.face == "eyepatch":
            sides = (-1, 1) if b.muzzle == "flat" else (-1,)
            for side in sides:
                self._oval(side * 0.62 + f, 0.28, 0.48, 0.62, b.second)
        elif b.face == "cheeks":
            for side in (-1, 1):
                self._oval(side * 0.6 + f, -0.56, 0.52, 0.42, b.third)
                self._oval(side * 0.4 + f, 0.44, 0.17, 0.12, b.third)
        elif b.face == "spectacles":
            for side in (-1, 1):
                self._oval(side * 0.46 + f, 0.08, 0.42, 0.38, b.third)
                self.pen.stroke(
                    [self._at(side * 0.6 + f, 0.1), self._at(side * 1.1, 0.28)], 0.1 * self.r, b.second
                )

    def _eyes(self) -> None:
        b, cat = self.breed, self.breed.species == "cat"
        ru, rv = (0.25, 0.2) if cat else (0.18, 0.19)
        rim = (18, 14, 16)
        surround = b.second if b.face in ("mask", "points") else self.colour
        dark_around = luminance(surround) < 75
        for side in (-1, 1):
            u, v = side * 0.42 + FACING_SHIFT * 1.3, 0.1
            if cat:
                self._oval(u, v, ru + 0.06, rv + 0.06, rim)
                self._oval(u, v, ru, rv, b.eyes)
                self._oval(u, v, 0.09, rv * 0.95, (10, 10, 12))
            else:
                self._oval(
                    u, v, ru + 0.05, rv + 0.05, mix(surround, (214, 196, 176), 0.55) if dark_around else rim
                )
                self._oval(u, v, ru, rv, mix(b.eyes, (20, 12, 10), 0.55))
            self._oval(u + 0.06, v + 0.07, 0.07, 0.07, (255, 255, 255))

    def _muzzle_colour(self) -> Colour:
        b = self.breed
        if b.face in ("mask", "points"):
            return shade(b.second, 1.1) if luminance(b.second) > 50 else mix(b.second, (110, 100, 100), 0.18)
        if b.face in ("blaze", "vee") or (b.face == "eyepatch" and luminance(b.main) > 180):
            return 246, 243, 238
        if b.face == "tan":
            return b.second
        if b.face in ("cheeks", "spectacles") and luminance(b.third) > 100:
            return b.third
        return mix(self.colour, (255, 246, 232), 0.14)

    def _muzzle(self) -> None:
        b = self.breed
        reach, ru, rv = MUZZLE_SHAPE[b.muzzle]
        colour, v = self._muzzle_colour(), -0.42
        if b.species == "cat":
            reach, ru, rv, v = min(0.16 + 0.25 * (reach > 0.3), reach), 0.36, 0.24, -0.42
        if b.beard:
            cx, cy = self._at(0.5 * reach + FACING_SHIFT, -0.78)
            for grow, fill in ((0.06, dark_line(b.beard)), (0.0, b.beard)):
                self.pen.polygon(
                    blob(cx, cy, (0.5 + grow) * self.r, (0.46 + grow) * self.r, 0.0, "long"), fill
                )
            colour = b.beard
        steps = 3 if reach > 0.3 else 1
        for grow, fill in ((0.06, dark_line(colour)), (0.0, colour)):
            for k in np.linspace(1.0 / steps, 1.0, steps):
                thick = 1.18 - 0.18 * k
                self._oval(
                    FACING_SHIFT + reach * k, v - 0.06 * k, (ru + grow) * thick, (rv + grow) * thick, fill
                )
        tip = FACING_SHIFT + reach * 1.12 + (0.08 if b.species == "dog" and reach > 0.3 else 0.0)
        nose = b.nose
        if luminance(colour) < 60 and luminance(nose) < 60:
            nose = (8, 6, 8)
        size = 0.13 if b.species == "cat" else 0.19
        top = v + rv * 0.55
        wide, narrow, low = size * 1.15, size * 0.3, top - size * 1.2
        self._poly(
            [(tip - wide, top + 0.06), (tip + wide, top + 0.06), (tip + narrow, low), (tip - narrow, low)],
            nose,
        )
        mouth = shade(colour, 0.5) if luminance(colour) > 60 else (120, 104, 104)
        smile = [self._at(tip - 0.28, v - 0.2), self._at(tip - 0.05, v - 0.12), self._at(tip + 0.2, v - 0.2)]
        self.pen.stroke(smile, 0.06 * self.r, mouth)
