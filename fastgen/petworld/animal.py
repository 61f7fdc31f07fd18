"""Draws a whole animal: legs, torso with its coat pattern, tail and head, in one of five poses."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from fastgen.petworld.attributes import POSES
from fastgen.petworld.breeds import Breed
from fastgen.petworld.coat import CoatPainter
from fastgen.petworld.drawing import Colour, Pen, Point, blob, shade
from fastgen.petworld.head import Head, dark_line

BODY = {"slim": (0.40, 0.155, 0.40, 0.255, 0.095, 0.98), "medium": (0.40, 0.20, 0.33, 0.285, 0.115, 0.98),
        "stocky": (0.38, 0.245, 0.25, 0.315, 0.15, 1.0), "large": (0.44, 0.245, 0.33, 0.30, 0.145, 1.02),
        "tiny": (0.33, 0.19, 0.24, 0.33, 0.10, 0.88), "long-low": (0.52, 0.20, 0.14, 0.315, 0.125, 0.95),
        }  # fmt: skip
"""Per build: half length, half thickness, leg length, head radius, leg width (animal units), scale."""

UNIT = 0.47
"""Pixels per animal unit, as a fraction of the picture, before the scales of breed and scene."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Where the parts of one pose are, in animal units; legs are polylines from the hip to the paw."""

    torso: tuple[float, float, float, float, float]
    haunch: tuple[float, float, float] | None
    near_legs: tuple[tuple[Point, ...], ...]
    far_legs: tuple[tuple[Point, ...], ...]
    head: Point
    tail: Point
    tail_angle: float


def _sitting(h: float, t: float, leg: float, r: float) -> Skeleton:
    up = 0.40 + 0.3 * leg
    front = 0.08 + 0.5 * t
    return Skeleton(
        (-0.1, up, up * 0.98, max(t * 1.2, 0.225), 1.2), (-0.2 - 0.3 * t, t * 1.12, t * 1.3),
        (((front - 0.02, up * 1.1), (front + 0.06, 0.04), (front + 0.12, 0.04)),
         ((-0.2, 0.05), (0.02 + 0.3 * t, 0.05))),
        (((front + 0.08, up * 1.1), (front + 0.17, 0.06), (front + 0.22, 0.06)),),
        (0.14, up * 1.72 + r * 0.5), (-0.32 - t, 0.12), 2.6,
    )  # fmt: skip


def _standing(h: float, t: float, leg: float, r: float) -> Skeleton:
    y, top = leg + t * 0.95, leg + t * 0.8
    return Skeleton(
        (-0.08, y, h, t, 0.04), None,
        (((-h * 0.82, top), (-h * 0.98, leg * 0.5), (-h * 0.9, 0.03), (-h * 0.8, 0.03)),
         ((h * 0.5, top), (h * 0.5, 0.03), (h * 0.6, 0.03))),
        (((-h * 0.6, top), (-h * 0.62, 0.06), (-h * 0.52, 0.06)),
         ((h * 0.72, top), (h * 0.76, 0.06), (h * 0.86, 0.06))),
        (h * 0.9, y + t * 0.8 + r * 0.45), (-h * 1.02, y + t * 0.4), 2.3,
    )  # fmt: skip


def _lying(h: float, t: float, leg: float, r: float) -> Skeleton:
    return Skeleton(
        (-0.14, t * 0.82, h * 1.12, t * 0.9, 0.04), (-0.14 - h * 0.7, t * 0.75, t * 0.85),
        (((h * 0.4, t * 0.5), (h * 0.9, 0.06), (h * 1.45, 0.05)), ((-h * 1.0, 0.05), (-h * 0.35, 0.05))),
        (((h * 0.5, t * 0.5), (h * 1.0, 0.1), (h * 1.62, 0.09)),),
        (h * 0.82, r * 0.95 + t * 0.42), (-0.14 - h * 1.05, t * 0.45), 3.05,
    )  # fmt: skip


def _running(h: float, t: float, leg: float, r: float) -> Skeleton:
    y = leg * 0.85 + t
    low = leg * 0.95 + 0.1
    return Skeleton(
        (-0.05, y, h * 1.12, t * 0.88, 0.1), None,
        (((-h * 0.7, y), (-h * 1.2, y - low * 0.35), (-h * 1.5 - 0.05, y - low * 0.85)),
         ((h * 0.55, y), (h * 1.1, y - low * 0.4), (h * 1.5 + 0.1, y - low * 0.62))),
        (((-h * 0.6, y), (-h * 0.8, y - low * 0.5), (-h * 1.2, y - low)),
         ((h * 0.6, y), (h * 0.9, y - low * 0.6), (h * 1.2, y - low * 0.98))),
        (h * 1.02, y + t * 0.65 + r * 0.35), (-h * 1.1, y + t * 0.1), 2.85,
    )  # fmt: skip


def _jumping(h: float, t: float, leg: float, r: float) -> Skeleton:
    angle, y = 0.62, 0.62 + t + leg * 0.3
    c, s = math.cos(angle), math.sin(angle)
    rear, front = (-0.05 - h * 0.7 * c, y - h * 0.7 * s), (-0.05 + h * 0.6 * c, y + h * 0.6 * s)
    reach = leg * 0.8 + 0.12
    return Skeleton(
        (-0.05, y, h, t * 0.95, angle), None,
        ((rear, (rear[0] - 0.14, rear[1] - reach * 0.5), (rear[0] - 0.36, rear[1] - reach)),
         (front, (front[0] + 0.24, front[1] - 0.06), (front[0] + 0.3, front[1] - 0.1 - reach * 0.5))),
        ((rear, (rear[0] + 0.08, rear[1] - reach * 0.6), (rear[0] - 0.1, rear[1] - reach * 1.1)),
         (front, (front[0] + 0.34, front[1] + 0.02), (front[0] + 0.5, front[1] - reach * 0.35))),
        (-0.02 + h * c * 0.95, y + h * s * 0.95 + t * 0.5 + r * 0.4),
        (-0.05 - h * c, y - h * s + t * 0.2), 3.5,
    )  # fmt: skip


_SKELETONS = dict(zip(POSES, (_sitting, _standing, _lying, _running, _jumping), strict=True))


def skeleton(breed: Breed, pose: str) -> tuple[Skeleton, float, float]:
    """The joints of `breed` in `pose`, its head's radius and its legs' width, in animal units."""
    h, t, leg, r, width, _ = BODY[breed.build]
    bones = _SKELETONS[pose](h, t, leg, r)
    return bones, r, width * (1.3 if breed.fur in ("long", "curly") else 1.0)


class Animal:
    """Draws one animal on a transparent layer."""

    def __init__(self, pen: Pen, breed: Breed, pose: str, rng: np.random.Generator) -> None:
        self.pen, self.breed, self.pose, self.rng = pen, breed, pose, rng
        self.bones, self.head_radius, self.leg_width = skeleton(breed, pose)
        points = breed.pattern == "points"
        self.leg_colour = breed.leg_colour or (breed.second if points else breed.main)
        self.tail_colour = breed.tail_colour or (
            breed.second if points or breed.pattern == "saddle" else breed.main
        )

    def draw(self) -> None:
        """Draws everything, from the far legs to the head."""
        for leg in self.bones.far_legs:
            self._leg(leg, 0.72)
        self._tail()
        self._torso()
        for leg in self.bones.near_legs:
            self._leg(leg, 1.0)
        self._chest()
        Head(self.pen, self.breed, *self.bones.head, self.head_radius).draw()

    def _leg(self, joints: tuple[Point, ...], tone: float) -> None:
        """One leg; `tone` < 1 darkens the far ones. Coloured legs keep the coat's colour above the knee."""
        b, w = self.breed, self.leg_width
        thigh, colour = shade(b.main, tone), shade(self.leg_colour, tone)
        if tone == 1.0:
            self.pen.stroke(joints[-3:], w + 0.035, dark_line(colour))
        self.pen.stroke(joints, w, thigh)
        if colour != thigh:
            (x0, y0), (x1, y1) = joints[0], joints[1]
            self.pen.stroke(((x0 + (x1 - x0) * 0.5, y0 + (y1 - y0) * 0.5), *joints[1:]), w, colour)
        if b.pattern in ("tabby", "brindle", "spots", "rosettes") and len(joints) > 2:
            (x0, y0), (x1, y1) = joints[-3], joints[-2]
            for k in (0.35, 0.7):
                x, y = x0 + (x1 - x0) * k, y0 + (y1 - y0) * k
                self.pen.stroke([(x - w * 0.4, y), (x + w * 0.4, y)], 0.045, shade(b.second, tone))
        if b.foot_colour:
            (x0, y0), (x1, y1) = joints[-2], joints[-1]
            back = 0.08 / max(0.08, math.dist(joints[-2], joints[-1]))
            foot = (x1 + (x0 - x1) * back, y1 + (y0 - y1) * back)
            self.pen.stroke([foot, (x1, y1)], w * 1.08, shade(b.foot_colour, tone))

    def _tail_path(self) -> tuple[list[Point], list[float]]:
        """Centres and half widths along the tail."""
        (x, y), angle, kind = self.bones.tail, self.bones.tail_angle, self.breed.tail
        big = BODY[self.breed.build][1] / 0.2
        k = np.linspace(0.0, 1.0, 14)
        if kind == "curl":
            a = np.linspace(-0.6, 4.4, 14)
            radius = (0.17 - 0.07 * k) * big
            xs, ys = x + 0.08 + radius * np.cos(a) * 0.95 - 0.08, y + 0.15 * big + radius * np.sin(a)
            width = 0.085 if self.breed.fur in ("long", "curly") else 0.05
            return list(zip(xs, ys, strict=True)), list(np.full(14, width * big))
        length = {"thin": 0.5, "whip": 0.52, "plume": 0.5, "stub": 0.15, "up": 0.36}[kind]
        if kind == "up" and self.pose != "lying":
            angle = angle - 0.65
        bend = {"thin": -0.9, "whip": 0.5, "plume": -0.5, "stub": 0.0, "up": -0.35}[kind]
        if self.pose in ("lying", "sitting") and kind != "up":
            bend = -0.55
        turn = angle + bend * (k - 0.35)
        xs = x + np.cumsum(np.cos(turn)) * length / 14
        ys = np.maximum(y + np.cumsum(np.sin(turn)) * length / 14, 0.05)
        half = {"thin": 0.045 - 0.012 * k, "whip": 0.045 - 0.03 * k, "plume": 0.05 + 0.075 * np.sin(k * 2.7),
                "stub": 0.06 - 0.01 * k, "up": 0.055 - 0.025 * k}[kind]  # fmt: skip
        return list(zip(xs, ys, strict=True)), list(half * (big if kind == "plume" else 1.0))

    def _tail(self) -> None:
        path, half = self._tail_path()
        b, colour = self.breed, self.tail_colour
        jag = 0.03 if b.tail == "plume" or (b.fur == "long" and b.tail == "curl") else 0.0
        for grow, fill in ((0.02, dark_line(colour)), (0.0, colour)):
            for i, ((x, y), w) in enumerate(zip(path, half, strict=True)):
                w = w + grow + jag * (i % 2)
                self.pen.ellipse(x, y, w, w, fill)
        tipped = b.tail_tip or (b.second if b.pattern in ("tabby", "spots", "rosettes") else None)
        if b.pattern in ("tabby", "spots", "rosettes"):
            for i in (4, 8):
                self.pen.ellipse(*path[i], half[i], half[i], b.second)
        if tipped:
            for (x, y), w in zip(path[10:], half[10:], strict=True):
                self.pen.ellipse(x, y, w * 1.05, w * 1.05, tipped)

    def _torso(self) -> None:
        b, bones = self.breed, self.bones
        x, y, rx, ry, angle = bones.torso
        outline = dark_line(b.main)
        self.pen.polygon(blob(x, y, rx + 0.02, ry + 0.02, angle, b.fur), outline)
        if bones.haunch:
            hx, hy, hr = bones.haunch
            self.pen.polygon(blob(hx, hy, hr + 0.02, hr + 0.02, 0.0, b.fur), outline)
        normal = self.pen.begin_mask()
        self.pen.polygon(blob(x, y, rx, ry, angle, b.fur), 255)
        if bones.haunch:
            self.pen.polygon(blob(hx, hy, hr, hr, 0.0, b.fur), 255)
        self.pen.begin_coat(b.main)
        CoatPainter(self.pen, b, bones.torso, self.rng).draw()
        if bones.haunch:
            arc = [(hx + hr * math.cos(a), hy + hr * math.sin(a)) for a in np.linspace(-0.6, 1.7, 9)]
            self.pen.stroke(arc, 0.03, outline)
        self.pen.end_coat(normal)

    def _chest(self) -> None:
        if not self.breed.chest:
            return
        x, y, rx, ry, angle = self.bones.torso
        u, v = (rx * 0.3, -ry * 0.62) if self.pose == "sitting" else (rx * 0.72, -ry * 0.3)
        cx = x + u * math.cos(angle) - v * math.sin(angle)
        cy = y + u * math.sin(angle) + v * math.cos(angle)
        fur = "long" if self.breed.fur == "long" else "short"
        self.pen.polygon(
            blob(cx, cy, 0.17, max(0.62 * ry, 0.13), angle * 0.5 if angle < 1 else angle, fur),
            self.breed.chest,
        )


def _vary(breed: Breed, rng: np.random.Generator) -> Breed:
    """One individual of the breed: all its colours a little brighter or darker, and warmer or cooler."""
    gain = rng.uniform(0.93, 1.05)
    warm = rng.uniform(-5, 5)

    def change(colour: Colour | None) -> Colour | None:
        if colour is None:
            return None
        r, g, b = shade(colour, gain)
        return min(255, max(0, int(r + warm))), g, min(255, max(0, int(b - warm)))

    names = ("main", "second", "third", "ear_colour", "leg_colour", "foot_colour", "tail_colour", "tail_tip",
             "chest", "ruff", "beard", "topknot")  # fmt: skip
    changed: dict[str, Any] = {name: change(getattr(breed, name)) for name in names}
    return replace(breed, **changed)


def animal_scale(breed: Breed, size: float, pose: str, ground: float) -> float:
    """Animal units to picture fractions, limited so that the head stays inside the picture."""
    bones, r, _ = skeleton(breed, pose)
    ear = {"tufted": 1.75, "bat": 1.5, "pointed": 0.62 + 0.78 * breed.ear_size}.get(breed.ears, 1.15)
    return min(
        UNIT * BODY[breed.build][5] * breed.scale * size,
        (ground - 0.02) / (bones.head[1] + r * max(1.1, ear)),
    )


def draw_animal(
    breed: Breed, pose: str, facing: int, place: tuple[float, float], size: float, pixels: int, seed: int
) -> tuple[Image.Image, float]:
    """Draws an animal on a transparent layer.

    Args:
        breed: what to draw.
        pose: one of `POSES`.
        facing: 1 to the right, -1 to the left.
        place: horizontal centre and ground line, as fractions of the picture.
        size: scale relative to the breed's own, about 0.8 to 1.2.
        pixels: side of the layer.
        seed: seeds the individual (colour and spots).

    Returns:
        the RGBA layer (pixels, pixels) and the scale in pixels per animal unit.
    """
    rng = np.random.default_rng((seed, 1))
    drawn = 2 * pixels  # and reduced below, for smooth edges
    scale = animal_scale(breed, size, pose, place[1]) * drawn
    centre = {"sitting": 0.08, "jumping": -0.1}.get(pose, 0.0)
    pen = Pen(drawn, (place[0] * drawn + facing * centre * scale, place[1] * drawn), scale, facing)
    Animal(pen, _vary(breed, rng), pose, rng).draw()
    return _light_from_above(pen.image.reduce(2)), scale / 2


def _light_from_above(layer: Image.Image) -> Image.Image:
    """Shades the layer towards its lower side, which makes the flat parts look round."""
    n = layer.size[0]
    alpha = layer.getchannel("A")
    high = ImageChops.offset(alpha, 0, -(n // 36)).filter(ImageFilter.BoxBlur(n // 40))
    shading = high.point([int(255 * (0.74 + 0.26 * i / 255)) for i in range(256)])
    lit = ImageChops.multiply(layer.convert("RGB"), Image.merge("RGB", (shading,) * 3))
    lit.putalpha(alpha)
    return lit
