"""The ten backgrounds: each one is told apart by its objects, not by its colours alone."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from fastgen.petworld.drawing import Colour, Painter, mix, shade

Rng = np.random.Generator
T = TypeVar("T")


def _pick(rng: Rng, values: Sequence[T]) -> T:
    return values[int(rng.integers(len(values)))]


def _cloud(p: Painter, x: float, y: float, s: float, colour: Colour) -> None:
    for dx, dy, r in ((-0.9, 0.1, 0.5), (0.0, -0.15, 0.7), (0.9, 0.1, 0.5)):
        p.ellipse(x + dx * s, y + dy * s, r * s * 1.2, r * s * 0.8, colour)


def _clouds(p: Painter, rng: Rng, colour: Colour = (250, 250, 252)) -> None:
    for _ in range(rng.integers(1, 4)):
        x, y, s = rng.uniform((0.0, 0.05, 0.05), (1.0, 0.24, 0.09)).tolist()
        _cloud(p, x, y, s, colour)


def _hill(p: Painter, x: float, y: float, width: float, height: float, colour: Colour) -> None:
    p.ellipse(x, y, width, height, colour)


def _fir(p: Painter, x: float, base: float, h: float, green: Colour, snow: Colour | None = None) -> None:
    p.rect(x - 0.02, base - 0.12 * h, x + 0.02, base, (92, 66, 50))
    for k in range(3):
        top, low, w = base - h + k * 0.22 * h, base - h + (k * 0.26 + 0.42) * h, h * (0.16 + 0.09 * k)
        p.polygon([(x, top), (x - w, low), (x + w, low)], green)
        if snow:
            p.polygon([(x, top), (x - w * 0.75, low - 0.06 * h), (x - w * 0.1, low - 0.16 * h),
                       (x + w * 0.3, low - 0.1 * h)], snow)  # fmt: skip


def meadow(p: Painter, rng: Rng) -> None:
    """Green hills, a wooden fence and flowers."""
    p.gradient(0.0, 0.6, (96, 172, 240), (206, 232, 250))
    _clouds(p, rng)
    shift = rng.uniform(-0.2, 0.2)
    _hill(p, 0.15 + shift, 0.72, 0.5, 0.26, (126, 184, 96))
    _hill(p, 0.85 + shift, 0.74, 0.55, 0.22, (104, 170, 82))
    p.gradient(0.6, 1.0, (112, 190, 72), (64, 140, 44))
    fence = _pick(rng, ((246, 240, 226), (170, 120, 76)))
    for y in (0.5, 0.57):
        p.rect(0.0, y, 1.0, y + 0.022, fence)
    for x in np.arange(rng.uniform(0.02, 0.12), 1.0, 0.17).tolist():
        p.polygon([(x, 0.64), (x, 0.47), (x + 0.022, 0.45), (x + 0.045, 0.47), (x + 0.045, 0.64)], fence)
    for x, y in rng.uniform((0.0, 0.68), (1.0, 0.98), (14, 2)).tolist():
        petal = _pick(rng, ((250, 90, 90), (255, 224, 70), (252, 252, 252), (222, 120, 226)))
        p.ellipse(x, y, 0.022, 0.018, petal)
        p.ellipse(x, y, 0.008, 0.007, (250, 190, 40))


def beach(p: Painter, rng: Rng) -> None:
    """Sea with breaking waves, sand with shells, a palm and a striped umbrella."""
    p.gradient(0.0, 0.42, (70, 176, 236), (204, 238, 250))
    p.ellipse(rng.uniform(0.3, 0.7), 0.14, 0.07, 0.07, (255, 238, 130))
    p.gradient(0.4, 0.58, (24, 128, 184), (76, 198, 208))
    side = 1 if rng.random() < 0.5 else -1
    for y in (0.45, 0.51):
        for x in np.arange(rng.uniform(0.0, 0.1), 1.0, 0.24).tolist():
            p.rect(x, y, x + 0.12, y + 0.012, (214, 242, 248))
    p.gradient(0.58, 1.0, (246, 220, 160), (226, 186, 116))
    for x in np.arange(-0.05, 1.05, 0.1).tolist():
        p.ellipse(x, 0.585, 0.07, 0.022, (250, 252, 252))
    x = 0.5 + side * 0.4
    p.line([(x, 0.72), (x - side * 0.03, 0.5), (x - side * 0.07, 0.2)], 0.035, (140, 100, 62))
    for a in np.linspace(-2.9, 0.3, 6).tolist():
        tip = (x - side * 0.07 + 0.22 * math.cos(a), 0.2 + 0.17 * math.sin(a) + 0.07)
        p.polygon([(x - side * 0.07, 0.16), tip, (x - side * 0.07, 0.23)], (44, 150, 74))
    u = 0.5 - side * 0.36
    p.line([(u, 0.78), (u, 0.4)], 0.018, (240, 240, 240))
    for k, colour in enumerate(((232, 62, 62), (250, 246, 240)) * 3):
        p.polygon([(u, 0.3), (u - 0.2 + k * 0.0667, 0.45), (u - 0.2 + (k + 1) * 0.0667, 0.45)], colour)
    for sx, sy in rng.uniform((0.03, 0.8), (0.97, 0.97), (5, 2)).tolist():
        p.ellipse(sx, sy, 0.022, 0.014, _pick(rng, ((255, 246, 236), (244, 176, 160), (206, 130, 96))))


def forest(p: Painter, rng: Rng) -> None:
    """Thick trunks under a closed canopy, ferns and red mushrooms."""
    p.gradient(0.0, 0.66, (60, 104, 62), (150, 184, 110))
    for x in rng.uniform(0.0, 1.0, 5).tolist():
        p.rect(x, 0.0, x + 0.03, 0.64, (92, 96, 62))
    p.gradient(0.62, 1.0, (92, 92, 48), (58, 56, 30))
    for k in range(5):
        x = 0.03 + k * 0.235 + rng.uniform(-0.06, 0.06)
        w, brown = rng.uniform(0.03, 0.05), _pick(rng, ((84, 54, 34), (70, 46, 32), (102, 70, 44)))
        p.polygon([(x - w, 0.0), (x + w, 0.0), (x + w, 0.66), (x + w * 1.8, 0.73), (x - w * 1.8, 0.73),
                   (x - w, 0.66)], brown)  # fmt: skip
        p.rect(x + w * 0.3, 0.0, x + w, 0.66, shade(brown, 0.75))
    for k in range(9):
        x, y = k * 0.125 + rng.uniform(-0.03, 0.03), rng.uniform(0.0, 0.1)
        p.ellipse(x, y, 0.12, 0.1, _pick(rng, ((34, 92, 44), (46, 112, 50), (28, 76, 40))))
    for x in (rng.uniform(0.02, 0.2), rng.uniform(0.8, 0.98)):
        for a in (-2.5, -2.0, -1.57, -1.1, -0.6):
            p.line([(x, 0.82), (x + 0.12 * math.cos(a), 0.82 + 0.12 * math.sin(a))], 0.02, (70, 150, 60))
    for x, y in rng.uniform((0.05, 0.84), (0.95, 0.95), (3, 2)).tolist():
        p.rect(x - 0.012, y, x + 0.012, y + 0.05, (240, 230, 210))
        p.ellipse(x, y, 0.045, 0.03, (210, 44, 40))
        for dx in (-0.02, 0.015):
            p.ellipse(x + dx, y - 0.008, 0.008, 0.007, (255, 255, 255))


def _house(p: Painter, x: float, w: float, top: float, colour: Colour, lit: Colour) -> None:
    p.rect(x, top, x + w, 0.64, colour)
    p.polygon([(x - 0.015, top), (x + w / 2, top - 0.1), (x + w + 0.015, top)], shade(colour, 0.6))
    for wy in np.arange(top + 0.05, 0.54, 0.12).tolist():
        for wx in (x + w * 0.16, x + w * 0.58):
            p.rect(wx - 0.008, wy - 0.008, wx + w * 0.26 + 0.008, wy + 0.078, (248, 244, 236))
            p.rect(wx, wy, wx + w * 0.26, wy + 0.07, lit)


def street(p: Painter, rng: Rng) -> None:
    """A row of gabled houses, pavement, a road with dashes, and a lamp post."""
    p.gradient(0.0, 0.5, (150, 182, 212), (220, 226, 232))
    x = rng.uniform(-0.12, 0.0)
    walls = (
        (200, 100, 84),
        (226, 190, 120),
        (120, 150, 176),
        (180, 140, 160),
        (150, 176, 140),
        (214, 214, 208),
    )
    while x < 1.0:
        w = rng.uniform(0.22, 0.3)
        _house(p, x, w, rng.uniform(0.2, 0.32), _pick(rng, walls), (84, 112, 146))
        x += w + 0.01
    p.rect(0.0, 0.64, 1.0, 0.72, (190, 186, 180))
    p.rect(0.0, 0.715, 1.0, 0.73, (236, 234, 228))
    p.gradient(0.73, 1.0, (96, 98, 106), (74, 76, 84))
    for x in np.arange(rng.uniform(-0.2, 0.0), 1.0, 0.3).tolist():
        p.polygon([(x + 0.02, 0.9), (x + 0.18, 0.9), (x + 0.16, 0.935), (x, 0.935)], (250, 244, 214))
    x = _pick(rng, (0.07, 0.93))
    p.line([(x, 0.74), (x, 0.22)], 0.026, (44, 50, 58))
    p.rect(x - 0.05, 0.14, x + 0.05, 0.23, (255, 236, 150), 0.02)
    p.rect(x - 0.06, 0.12, x + 0.06, 0.15, (44, 50, 58))


def snow(p: Painter, rng: Rng) -> None:
    """White ground, firs loaded with snow, a snowman and flakes."""
    p.gradient(0.0, 0.62, (150, 172, 200), (214, 224, 236))
    _hill(p, rng.uniform(0.1, 0.9), 0.66, 0.6, 0.2, (228, 234, 244))
    p.gradient(0.62, 1.0, (240, 245, 252), (206, 218, 236))
    for x in (0.08, 0.3, 0.72, 0.93):
        x = x + rng.uniform(-0.05, 0.05)
        _fir(p, x, 0.68, rng.uniform(0.4, 0.56), _pick(rng, ((52, 96, 84), (64, 110, 92))), (248, 250, 254))
    x = _pick(rng, (0.12, 0.88))
    for dy, r in ((0.0, 0.085), (-0.12, 0.06)):
        p.ellipse(x, 0.74 + dy, r + 0.008, r + 0.008, (176, 190, 212))
        p.ellipse(x, 0.74 + dy, r, r, (252, 253, 255))
    p.rect(x - 0.045, 0.5, x + 0.045, 0.575, (46, 50, 60))
    p.rect(x - 0.07, 0.57, x + 0.07, 0.585, (46, 50, 60))
    p.polygon([(x, 0.61), (x + 0.07, 0.625), (x, 0.64)], (240, 130, 40))
    for fx, fy in rng.uniform(0.0, 1.0, (30, 2)).tolist():
        p.ellipse(fx, fy, 0.012, 0.012, (255, 255, 255))


def lake(p: Painter, rng: Rng) -> None:
    """Blue mountains behind water with ripples, a sailing boat, reeds, and a wooden jetty in front."""
    p.gradient(0.0, 0.44, (126, 190, 232), (236, 238, 226))
    for x, h in ((0.15, 0.24), (0.5, 0.32), (0.85, 0.22)):
        x = x + rng.uniform(-0.08, 0.08)
        p.polygon([(x - 0.36, 0.45), (x, 0.45 - h), (x + 0.36, 0.45)], (104, 126, 162))
        p.polygon([(x - 0.08, 0.45 - h * 0.78), (x, 0.45 - h), (x + 0.08, 0.45 - h * 0.78)], (244, 246, 250))
    p.rect(0.0, 0.42, 1.0, 0.46, (66, 112, 84))
    p.gradient(0.45, 1.0, (92, 164, 204), (26, 86, 140))
    for x, y in rng.uniform((-0.05, 0.5), (0.95, 0.76), (14, 2)).tolist():
        p.rect(x, y, x + 0.13, y + 0.012, (182, 220, 238))
    x, y = _pick(rng, (0.16, 0.84)), 0.56
    p.polygon([(x - 0.11, y), (x + 0.11, y), (x + 0.07, y + 0.06), (x - 0.07, y + 0.06)], (150, 62, 46))
    p.polygon([(x - 0.01, y - 0.02), (x - 0.01, y - 0.26), (x + 0.1, y - 0.02)], (252, 250, 244))
    p.polygon([(x - 0.025, y - 0.02), (x - 0.025, y - 0.2), (x - 0.08, y - 0.02)], (236, 226, 206))
    for k in range(5):
        p.rect(0.0, 0.78 + k * 0.05, 1.0, 0.824 + k * 0.05, (172, 130, 86) if k % 2 else (156, 114, 74))
    for x in (*rng.uniform(0.0, 0.12, 4).tolist(), *rng.uniform(0.88, 1.0, 4).tolist()):
        h = rng.uniform(0.22, 0.34)
        p.line([(x, 0.96), (x + 0.01, 0.96 - h)], 0.014, (72, 130, 60))
        p.rect(x, 0.92 - h, x + 0.026, 1.0 - h, (110, 66, 36), 0.01)


def sofa(p: Painter, rng: Rng) -> None:
    """A living room: big sofa with cushions, a picture on papered walls, a floor lamp."""
    wall = _pick(rng, ((232, 214, 184), (206, 216, 206), (222, 206, 214)))
    p.rect(0.0, 0.0, 1.0, 1.0, wall)
    for x in np.arange(0.0, 1.0, 0.125).tolist():
        p.rect(x, 0.0, x + 0.05, 0.8, shade(wall, 0.95))
    red = _pick(rng, ((178, 58, 58), (54, 110, 118), (92, 92, 150), (196, 140, 62)))
    left = rng.random() < 0.5
    fx, lx = (0.3, 0.88) if left else (0.7, 0.12)
    p.rect(fx - 0.16, 0.05, fx + 0.16, 0.27, (120, 84, 50))
    p.rect(fx - 0.13, 0.08, fx + 0.13, 0.24, (176, 214, 236))
    p.polygon(
        [(fx - 0.13, 0.24), (fx - 0.03, 0.13), (fx + 0.06, 0.2), (fx + 0.1, 0.17), (fx + 0.13, 0.24)],
        (80, 140, 90),
    )
    p.rect(0.0, 0.82, 1.0, 1.0, (150, 104, 70))
    p.line([(lx, 0.84), (lx, 0.26)], 0.02, (70, 60, 56))
    p.polygon([(lx - 0.05, 0.1), (lx + 0.05, 0.1), (lx + 0.11, 0.28), (lx - 0.11, 0.28)], (255, 236, 170))
    p.rect(0.08, 0.36, 0.92, 0.8, red, 0.07)
    p.line([(0.5, 0.38), (0.5, 0.7)], 0.012, shade(red, 0.75))
    p.rect(0.06, 0.68, 0.94, 0.93, shade(red, 1.14), 0.03)
    p.line([(0.1, 0.69), (0.9, 0.69)], 0.012, shade(red, 0.75))
    for x in (0.0, 0.84):
        p.rect(x, 0.5, x + 0.16, 0.94, shade(red, 0.84), 0.06)
    cushion = _pick(rng, ((250, 226, 150), (244, 244, 240), (120, 190, 180)))
    for x in (0.17, 0.68):
        p.polygon([(x, 0.54), (x + 0.14, 0.5), (x + 0.17, 0.66), (x + 0.02, 0.69)], cushion)
    for x in (0.08, 0.88):
        p.rect(x, 0.93, x + 0.04, 0.98, (60, 40, 30))


def kitchen(p: Painter, rng: Rng) -> None:
    """Wall tiles, cupboards with knobs, a fridge, a window and a chequered floor."""
    p.rect(0.0, 0.0, 1.0, 1.0, (226, 232, 230))
    for k in np.arange(0.0, 1.0, 0.1).tolist():
        p.rect(k, 0.0, k + 0.008, 0.66, (188, 200, 200))
        p.rect(0.0, k, 1.0, k + 0.008, (188, 200, 200))
    door = _pick(rng, ((238, 206, 150), (160, 196, 178), (136, 166, 196), (222, 150, 120)))
    flip = rng.random() < 0.5

    def at(x: float) -> float:
        return 1.0 - x if flip else x

    def box(x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        p.rect(min(at(x0), at(x1)), y0, max(at(x0), at(x1)), y1, fill)

    box(0.3, 0.06, 0.64, 0.38, (250, 250, 250))
    box(0.325, 0.085, 0.615, 0.355, (150, 210, 246))
    box(0.46, 0.085, 0.48, 0.355, (250, 250, 250))
    for x in (0.66, 0.84):
        box(x, 0.0, x + 0.165, 0.26, shade(door, 0.8))
        box(x + 0.015, 0.0, x + 0.15, 0.245, door)
        p.ellipse(at(x + 0.03), 0.2, 0.012, 0.012, (90, 80, 70))
    box(0.24, 0.5, 1.0, 0.535, (110, 84, 66))
    for x in (0.26, 0.51, 0.76):
        box(x, 0.535, x + 0.24, 0.74, shade(door, 0.8))
        box(x + 0.02, 0.555, x + 0.22, 0.725, door)
        p.ellipse(at(x + 0.04), 0.6, 0.012, 0.012, (90, 80, 70))
    box(0.8, 0.42, 0.92, 0.5, (206, 60, 54))
    box(0.0, 0.1, 0.235, 0.76, (172, 180, 188))
    box(0.01, 0.11, 0.225, 0.34, (242, 245, 248))
    box(0.01, 0.355, 0.225, 0.75, (242, 245, 248))
    box(0.185, 0.2, 0.203, 0.31, (110, 116, 124))
    box(0.185, 0.38, 0.203, 0.56, (110, 116, 124))
    for row, y in enumerate((0.75, 0.81, 0.9)):
        h = (0.06, 0.09, 0.1)[row]
        for k in range(7):
            tone = (246, 244, 238) if (k + row) % 2 else (150, 160, 168)
            p.rect(k * 0.167 - 0.08, y, k * 0.167 + 0.087, y + h, tone)


def desert(p: Painter, rng: Rng) -> None:
    """Dunes, tall cacti, a table mountain and a low hot sun."""
    p.gradient(0.0, 0.6, (250, 176, 92), (255, 228, 170))
    p.ellipse(rng.uniform(0.3, 0.7), 0.18, 0.1, 0.1, (255, 246, 200))
    x = rng.uniform(0.1, 0.6)
    p.polygon([(x, 0.6), (x + 0.06, 0.36), (x + 0.3, 0.36), (x + 0.38, 0.6)], (186, 96, 64))
    p.rect(x + 0.05, 0.42, x + 0.33, 0.45, (206, 120, 80))
    shift = rng.uniform(-0.15, 0.15)
    _hill(p, 0.2 + shift, 0.72, 0.5, 0.18, (232, 164, 92))
    _hill(p, 0.85 + shift, 0.74, 0.5, 0.2, (220, 148, 80))
    p.gradient(0.68, 1.0, (230, 160, 88), (206, 130, 66))
    for k in range(3):
        y = 0.76 + 0.08 * k
        p.line(
            [(t, y + 0.015 * math.sin(9 * t + k)) for t in np.linspace(0, 1, 12).tolist()],
            0.012,
            (196, 122, 62),
        )
    for x, h in ((rng.uniform(0.06, 0.16), 0.42), (rng.uniform(0.84, 0.94), 0.5)):
        green = _pick(rng, ((54, 122, 70), (70, 138, 76)))
        p.rect(x - 0.035, 0.74 - h, x + 0.035, 0.76, green, 0.035)
        for s, up in ((-1, 0.5), (1, 0.66)):
            y = 0.74 - h * up
            ax = x + s * 0.09
            p.rect(min(x, ax), y - 0.02, max(x, ax), y + 0.025, green)
            p.rect(ax - 0.022, y - 0.13, ax + 0.022, y + 0.025, green, 0.02)
        p.line([(x, 0.78 - h), (x, 0.74)], 0.01, mix(green, (220, 240, 180), 0.5))


def night(p: Painter, rng: Rng) -> None:
    """Stars and a crescent moon over dark hills with lit cottage windows."""
    p.gradient(0.0, 0.66, (10, 12, 44), (54, 56, 116))
    for x, y in rng.uniform((0.0, 0.0), (1.0, 0.45), (28, 2)).tolist():
        p.ellipse(x, y, 0.009, 0.009, (255, 252, 220))
    x = _pick(rng, (0.14, 0.86))
    p.ellipse(x, 0.16, 0.1, 0.1, (252, 244, 196))
    p.ellipse(x + 0.045, 0.14, 0.08, 0.08, (18, 20, 56))
    _hill(p, 0.2, 0.72, 0.5, 0.24, (28, 38, 66))
    _hill(p, 0.85, 0.74, 0.5, 0.22, (22, 32, 56))
    for hx in (rng.uniform(0.08, 0.2), rng.uniform(0.78, 0.9)):
        p.rect(hx - 0.09, 0.46, hx + 0.09, 0.62, (16, 18, 34))
        p.polygon([(hx - 0.12, 0.47), (hx, 0.36), (hx + 0.12, 0.47)], (12, 12, 26))
        for dx in (-0.06, 0.015):
            p.rect(hx + dx, 0.5, hx + dx + 0.045, 0.56, (255, 208, 84))
    p.gradient(0.64, 1.0, (38, 58, 70), (24, 36, 48))
    for gx, gy in rng.uniform((0.0, 0.7), (1.0, 0.98), (12, 2)).tolist():
        p.line([(gx, gy), (gx + 0.015, gy - 0.035)], 0.01, (62, 90, 92))


PAINTERS: dict[str, Callable[[Painter, Rng], None]] = {
    f.__name__: f for f in (meadow, beach, forest, street, snow, lake, sofa, kitchen, desert, night)
}
"""The painting function of every background of `attributes.BACKGROUNDS`."""


def draw_background(name: str, pixels: int, seed: int) -> Image.Image:
    """Paints a background.

    Args:
        name: one of `BACKGROUNDS`.
        pixels: side of the picture.
        seed: seeds positions and colours of its objects.

    Returns:
        an RGB image (pixels, pixels).
    """
    painter = Painter(pixels)
    PAINTERS[name](painter, np.random.default_rng((seed, 0)))
    return painter.image
