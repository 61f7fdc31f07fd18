"""The eight picture styles, as functions from a twice enlarged picture and the animal's mask to a picture.

Every style works on float32 arrays in 0..255 of twice the final size, which is fine enough for its texture
and cheap enough for a hundred pictures per second.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Array = np.ndarray
Rng = np.random.Generator
LUMA = np.array([0.3, 0.59, 0.11], np.float32)


def blur(a: Array, radius: float) -> Array:
    """Gaussian blur of a float32 picture (n, n, 3) or plane (n, n), with values in 0..255."""
    image = Image.fromarray(np.clip(a, 0, 255).astype(np.uint8))
    if radius < 2.5:
        return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    small = image.reduce(2).filter(ImageFilter.GaussianBlur(radius / 2))  # four times cheaper, looks the same
    return np.asarray(small.resize(image.size, Image.Resampling.BILINEAR), np.float32)


@lru_cache(maxsize=32)
def smooth_noise(n: int, cells: int, seed: int) -> Array:
    """A fixed smooth noise plane (n, n), float32 in -1..1, with features of n / cells pixels. Read only."""
    values = np.random.default_rng((77, seed)).uniform(0, 255, (cells, cells)).astype(np.uint8)
    plane = (
        np.asarray(Image.fromarray(values).resize((n, n), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1.0
    )
    plane.setflags(write=False)
    return plane


def _noise(n: int, cells: int, rng: Rng) -> Array:
    """Smooth noise, rolled by a random amount so that no two pictures share it."""
    dx, dy = rng.integers(0, n, 2)
    return np.roll(smooth_noise(n, cells, int(rng.integers(8))), (int(dy), int(dx)), (0, 1))


@lru_cache(maxsize=4)
def vignette(n: int, strength: float) -> Array:
    """A plane (n, n, 1) of factors that fall to 1 - strength in the corners."""
    t = np.linspace(-1, 1, n, dtype=np.float32) ** 2
    return (1.0 - strength * np.clip((t[:, None] + t[None, :]) / 2.0, 0, 1) ** 1.3)[..., None]


def _gray(a: Array) -> Array:
    return a @ LUMA


def _edges(plane: Array) -> Array:
    """Gradient magnitude of a plane, about 0..255 for a hard black-white edge."""
    out = np.zeros_like(plane)
    out[1:-1, 1:-1] = np.abs(plane[1:-1, 2:] - plane[1:-1, :-2]) + np.abs(plane[2:, 1:-1] - plane[:-2, 1:-1])
    return out


def _saturate(a: Array, amount: float) -> Array:
    gray = _gray(a)[..., None]
    return gray + (a - gray) * amount


def _posterise(a: Array, levels: int) -> Array:
    step = 255.0 / (levels - 1)
    return np.round(np.clip(a, 0, 255) / step) * step


def _photo(a: Array, mask: Array, rng: Rng) -> Array:
    return a


def _art_painting(a: Array, mask: Array, rng: Rng) -> Array:
    """Short thick brush strokes in the local colour, swirling, over a warm canvas with a visible weave."""
    n = a.shape[0]
    base = _posterise(_saturate(blur(a, n / 64), 1.35), 9)
    image = Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    count = 520
    xy = rng.integers(0, n, (count, 2))
    angle = 2.6 * smooth_noise(n, 4, int(rng.integers(8)))[xy[:, 1], xy[:, 0]] + rng.normal(0, 0.25, count)
    on_animal = mask[xy[:, 1], xy[:, 0]] > 100
    half = np.where(on_animal, 0.016, 0.045) * n
    order = np.argsort(on_animal, kind="stable")  # the animal's strokes go last, over those of the scene
    xy, angle, on_animal, half = xy[order], angle[order], on_animal[order], half[order]
    ends = np.stack([xy[:, 0] - half * np.cos(angle), xy[:, 1] - half * np.sin(angle),
                     xy[:, 0] + half * np.cos(angle), xy[:, 1] + half * np.sin(angle)], 1)  # fmt: skip
    colours = np.clip(
        base[xy[:, 1], xy[:, 0]]
        * (1.0 + rng.uniform(-0.13, 0.14, (count, 1)) * np.where(on_animal, 0.5, 1.0)[:, None]),
        0,
        255,
    ).astype(int)
    for line, colour, small in zip(ends.tolist(), colours.tolist(), on_animal.tolist(), strict=True):
        draw.line(line, fill=tuple(colour), width=max(1, n // 42 if small else n // 21))
    weave = 1.0 + 0.03 * ((np.add.outer(np.arange(n), np.arange(n)) // 2 % 2) * 2 - 1)
    inside = (mask / 255)[..., None] * 0.45
    out = np.asarray(image, np.float32) * (1 - inside) + _posterise(_saturate(a, 1.35), 7) * inside
    out *= np.array([1.05, 0.98, 0.84], np.float32)
    return out * weave[..., None].astype(np.float32)


def _cartoon(a: Array, mask: Array, rng: Rng) -> Array:
    """Flat saturated colours and black contours, thick around the animal."""
    n = a.shape[0]
    flat = _posterise(_saturate(blur(a, n / 128), 1.35) * 1.06 + 6, 5)
    inner = np.clip(_edges(_gray(blur(a, n / 160))) - 44, 0, 40) / 40
    around = np.clip(_edges(blur(mask, n / 90)) - 60, 0, 40) / 40
    gray = _gray(a)
    inner *= gray < blur(gray, n / 64)  # only the darker side, or lines would swallow small bright things
    ink = np.maximum(inner * 0.75, around)[..., None]
    return flat * (1 - ink) + np.array([12, 10, 16], np.float32) * ink


def _sketch(a: Array, mask: Array, rng: Rng) -> Array:
    """Grey pencil: contours, and hatching that gets denser in dark places."""
    n = a.shape[0]
    gray = _gray(a)
    ink = np.clip(_edges(blur(gray, n / 160)) * 1.4 - 20, 0, 160)
    outline = np.clip(_edges(blur(mask, n / 128)) * 1.5 - 70, 0, 150)
    yy, xx = np.mgrid[0:n, 0:n]
    wobble = 3.0 * _noise(n, 6, rng)
    first, second = ((xx + yy + wobble) % 7 < 2.6), ((xx * 1.1 - yy + wobble) % 7 < 2.6)
    dark = 1.0 - gray / 255
    inside = mask / 255
    tone = dark * (34 + 84 * inside)
    hatch = first * np.clip(dark - 0.3, 0, 1) * (45 + 35 * inside) + second * np.clip(dark - 0.6, 0, 1) * 90
    paper = 246 + 5 * _noise(n, n // 2, rng)
    plane = np.clip(paper - np.maximum(np.maximum(ink, outline), tone + hatch), 20, 255)
    return plane[..., None] * np.array([1.0, 0.995, 0.97], np.float32)


def _watercolor(a: Array, mask: Array, rng: Rng) -> Array:
    """Pale washes with wavering shapes, pigment gathered at the edges, and an unpainted ragged border."""
    n = a.shape[0]
    yy, xx = np.mgrid[0:n, 0:n]
    shift = n / 40
    sy = np.clip(yy + shift * _noise(n, 12, rng), 0, n - 1).astype(np.intp)
    sx = np.clip(xx + shift * _noise(n, 12, rng), 0, n - 1).astype(np.intp)
    inside = (mask / 255)[..., None]
    warped = a[sy, sx]
    wash = blur(warped, n / 42) * (1 - inside) + blur(warped, n / 90) * inside
    pale = 255 - (255 - _saturate(wash, 1.45)) * (0.52 + 0.26 * inside)
    pale *= 1.0 + 0.07 * _noise(n, 9, rng)[..., None]
    rim = np.clip(_edges(blur(_gray(warped), n / 90)), 0, 60)[..., None] / 60
    pale = pale * (1 - 0.2 * rim) + pale * (pale / 255) * 0.12 * rim
    t = np.abs(np.linspace(-1, 1, n, dtype=np.float32))
    border = np.maximum(t[:, None], t[None, :]) + 0.12 * _noise(n, 14, rng)
    bare = np.clip((border - 0.88) * 9, 0, 1)[..., None]
    paper = np.array([253, 250, 242], np.float32) * (1 + 0.02 * _noise(n, n // 2, rng)[..., None])
    return pale * (1 - bare) + paper * bare


def _pixel_art(a: Array, mask: Array, rng: Rng) -> Array:
    """21 blocks across, six levels per channel, and a dark contour of blocks around the animal."""
    n = a.shape[0]
    cells = 21
    box = (0, 0, n * 63 / 64, n * 63 / 64)
    small = Image.fromarray(np.clip(a, 0, 255).astype(np.uint8)).resize(
        (cells, cells), Image.Resampling.BOX, box
    )
    cover = Image.fromarray(mask.astype(np.uint8)).resize((cells, cells), Image.Resampling.BOX, box)
    inside = np.asarray(cover) > 110
    grown = inside.copy()
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        grown |= np.roll(inside, step, axis)
    centre = (np.arange(cells) * 6 + 3) * n // 128  # half point samples: averages alone would smear the eyes
    sharp = a[np.minimum(centre, n - 1)][:, np.minimum(centre, n - 1)]
    colour = _posterise(_saturate(0.5 * np.asarray(small, np.float32) + 0.5 * sharp, 1.3), 6)
    ring = grown & ~inside
    colour[ring] = colour[ring] * 0.35
    index = np.arange(n) * 64 // n // 3  # blocks of exactly 3 pixels at 64, so that their edges stay sharp
    index = np.minimum(index, cells - 1)
    return colour[index][:, index]


def _render_3d(a: Array, mask: Array, rng: Rng) -> Array:
    """The animal as a glossy inflated figure, lit from the upper left, before a blurred studio-lit scene."""
    n = a.shape[0]
    height = blur(mask, n / 16) * (mask / 255) + blur(_gray(a), n / 50) * 0.25
    height = blur(height, n / 64)
    gx, gy = np.zeros_like(height), np.zeros_like(height)
    gx[:, 1:-1] = height[:, 2:] - height[:, :-2]
    gy[1:-1] = height[2:] - height[:-2]
    k = n / 128 * 0.075
    norm = 1.0 / np.sqrt(1.0 + (gx * k) ** 2 + (gy * k) ** 2)
    facing = (0.62 - 0.5 * gx * k * -1.0 + 0.62 * gy * k) * norm
    lambert = np.clip(facing, 0, 1)
    gloss = np.clip(lambert - 0.78, 0, 1) * 900
    inside = (blur(mask, n / 128) / 255)[..., None]
    smooth = _saturate(blur(a, n / 110), 1.2)
    figure = smooth * (0.42 + 0.85 * lambert[..., None]) + np.minimum(gloss, 150)[..., None]
    scene = _saturate(blur(a, n / 30), 0.8) * 0.92
    contact = np.roll(blur(mask, n / 20), n // 24, 0)[..., None] / 255
    scene = scene * (1 - 0.5 * contact)
    return (figure * inside + scene * (1 - inside)) * vignette(n, 0.55)


def _cyberpunk(a: Array, mask: Array, rng: Rng) -> Array:
    """Dark magenta-cyan grading, glowing neon contours and scan lines."""
    n = a.shape[0]
    gray = _gray(a)[..., None] / 255
    inside = (mask / 255)[..., None]
    t = np.linspace(0, 1, n, dtype=np.float32)[:, None, None]
    night = np.array([16, 6, 40], np.float32)
    glow = np.array([255, 30, 190], np.float32) * (1 - t) + np.array([20, 220, 255], np.float32) * t
    graded = night + (glow - night) * (gray * np.sqrt(gray) * 0.75)
    colour = a * np.array([0.85, 0.62, 1.0], np.float32) * 0.8
    out = graded * (1 - 0.75 * inside) + colour * 1.05 * inside + 0.08 * colour * (1 - inside)
    lines = np.clip(_edges(blur(_gray(a), n / 110)) - 20, 0, 80)[..., None] / 80 * (1 - 0.75 * inside)
    rim = np.clip(_edges(blur(mask, n / 128)) - 40, 0, 110)[..., None] / 110
    side = np.linspace(0, 1, n, dtype=np.float32)[None, :, None]
    neon = np.array([0, 245, 255], np.float32) * (1 - side) + np.array([255, 40, 220], np.float32) * side
    light = lines * glow * 0.5 + rim * neon
    out = out + 0.9 * light + 0.9 * blur(light, n / 40) * (1 - 0.6 * inside)
    out[::4] *= 0.7
    return out


STYLE_FILTERS: dict[str, Callable[[Array, Array, Rng], Array]] = {
    "photo": _photo,
    "art painting": _art_painting,
    "cartoon": _cartoon,
    "sketch": _sketch,
    "watercolor": _watercolor,
    "pixel art": _pixel_art,
    "3d render": _render_3d,
    "cyberpunk": _cyberpunk,
}
"""The filter of every style of `attributes.STYLES`."""


def apply_style(style: str, picture: Array, mask: Array, seed: int) -> Array:
    """Redraws a picture in a style.

    Args:
        style: one of `STYLES`.
        picture: float32 (n, n, 3) in 0..255, n twice the final size.
        mask: float32 (n, n) in 0..255, the animal's coverage.
        seed: seeds strokes and grain.

    Returns:
        float32 (n, n, 3); values may leave 0..255 slightly.
    """
    return STYLE_FILTERS[style](picture, mask, np.random.default_rng((seed, 2)))
