"""Paints the coat patterns of the torso."""

import math

import numpy as np

from fastgen.petworld.breeds import Breed
from fastgen.petworld.drawing import Colour, Pen, Point, blob, mix


class CoatPainter:
    """Paints a body pattern in torso coordinates: u from tail (-1) to chest (1), v from belly to back."""

    def __init__(self, pen: Pen, breed: Breed, torso: tuple[float, ...], rng: np.random.Generator) -> None:
        self.pen, self.breed, self.rng = pen, breed, rng
        self.x, self.y, self.rx, self.ry, self.angle = torso

    def _at(self, u: float, v: float) -> Point:
        c, s = math.cos(self.angle), math.sin(self.angle)
        du, dv = u * self.rx, v * self.ry
        return self.x + du * c - dv * s, self.y + du * s + dv * c

    def _spot(self, u: float, v: float, r: float, fill: Colour) -> None:
        self.pen.ellipse(*self._at(u, v), r, r, fill)

    def _oval(self, u: float, v: float, ru: float, rv: float, fill: Colour) -> None:
        self.pen.polygon(blob(*self._at(u, v), ru * self.rx, rv * self.ry, self.angle), fill)

    def draw(self) -> None:
        """Paints the breed's pattern over the ground colour."""
        getattr(self, f"_{self.breed.pattern}")()

    def _solid(self) -> None:
        self._oval(0.0, -0.95, 0.9, 0.5, mix(self.breed.main, self.breed.second, 0.6))

    def _points(self) -> None:
        self._oval(0.0, 1.1, 0.9, 0.5, mix(self.breed.main, self.breed.second, 0.18))

    def _tabby(self) -> None:
        shift = self.rng.uniform(-0.1, 0.1)
        for u in np.arange(-0.95, 1.0, 0.38):
            top, low = u + shift, u + shift - 0.14
            self.pen.polygon([self._at(top - 0.12, 1.6), self._at(top + 0.12, 1.6), self._at(low, -0.7)],
                             self.breed.second)  # fmt: skip

    def _grid(self, step_u: float, step_v: float, jitter: float) -> list[Point]:
        cells = [(u + 0.5 * step_u * (j % 2), v) for j, v in enumerate(np.arange(-0.75, 1.3, step_v))
                 for u in np.arange(-1.2, 1.1, step_u)]  # fmt: skip
        moved = np.array(cells) + self.rng.uniform(-jitter, jitter, (len(cells), 2))
        return [(u, v) for u, v in moved.tolist()]

    def _spots(self) -> None:
        for u, v in self._grid(0.36, 0.62, 0.06):
            self._spot(u, v, 0.05, self.breed.second)

    def _rosettes(self) -> None:
        for u, v in self._grid(0.44, 0.74, 0.06):
            self._spot(u, v, 0.077, self.breed.second)
            self._spot(u + 0.02, v, 0.036, self.breed.third)

    def _patches(self) -> None:
        a, b, c = self.rng.uniform(-0.12, 0.12, 3)
        self._oval(-0.72 + a, 0.35, 0.36, 0.8, self.breed.second)
        self._oval(0.12 + b, 0.62 + c, 0.3, 0.72, self.breed.second)

    def _saddle(self) -> None:
        self._oval(-0.22, 0.72, 0.86, 1.0, self.breed.second)

    def _belly(self) -> None:
        self._oval(0.15, -0.95, 1.1, 0.85, self.breed.third)

    def _brindle(self) -> None:
        for u in np.arange(-1.15, 1.1, 0.27):
            u = u + self.rng.uniform(-0.04, 0.04)
            self.pen.stroke([self._at(u, -0.8), self._at(u + 0.12, 0.1), self._at(u + 0.32, 1.3)], 0.042,
                            self.breed.second)  # fmt: skip

    def _ticked(self) -> None:
        for u, v in self._grid(0.25, 0.45, 0.1):
            a, b = self._at(u, v), self._at(u + 0.07, v + 0.04)
            self.pen.stroke([a, b], 0.036, self.breed.second)

    def _shaded(self) -> None:
        self._oval(-0.15, 0.95, 1.0, 0.9, self.breed.second)
        for u, v in self._grid(0.3, 0.5, 0.08):
            self.pen.stroke(
                [self._at(u, v), self._at(u - 0.1, v - 0.3)],
                0.03,
                mix(self.breed.main, self.breed.second, 0.7),
            )
        self._oval(0.2, -1.0, 0.8, 0.55, self.breed.third)

    def _band(self) -> None:
        self._oval(-0.05, 0.0, 0.36, 1.5, self.breed.second)
