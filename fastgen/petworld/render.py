"""Turns a `Scene` into pixels, and draws random scenes.

Background and animal are drawn with PIL at four times the picture's size and reduced to twice its size, at
which they are put together and the style's filter works; the result is reduced to its size. Both reductions
average areas, which is the anti-aliasing.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fastgen.petworld.animal import draw_animal
from fastgen.petworld.attributes import BACKGROUNDS, LIGHTS, POSES, SIDES, STYLES, Scene
from fastgen.petworld.backgrounds import draw_background
from fastgen.petworld.breeds import breed as find_breed
from fastgen.petworld.drawing import Painter
from fastgen.petworld.styles import apply_style, blur, smooth_noise, vignette

GROUND = 0.87
"""Height of the ground line below the animal, as a fraction of the picture from its top."""

LIGHT_GAIN = {"bright": ((1.1, 1.09, 1.06), 8.0), "soft": ((0.86, 0.88, 0.9), 26.0),
              "golden": ((1.1, 0.94, 0.68), 6.0), "dim": ((0.58, 0.61, 0.7), 0.0)}  # fmt: skip
"""Per light: factors of red, green and blue, and an offset in 0..255."""

OCCLUDERS = ("grass", "pole", "ball", "fence")


def _check(scene: Scene, size: int) -> None:
    for field, allowed in (("pose", POSES), ("background", BACKGROUNDS), ("style", STYLES), ("side", SIDES),
                           ("light", LIGHTS)):  # fmt: skip
        value = getattr(scene, field)
        if value not in allowed:
            raise ValueError(f"scene.{field} is {value!r}; it must be one of {', '.join(allowed)}")
    if not 16 <= size <= 1024:
        raise ValueError(f"size is {size}; it must be 16 to 1024")
    if not 0.0 <= scene.realism <= 1.0:
        raise ValueError(f"scene.realism is {scene.realism}; it must be 0 to 1")


def _shadow(background: Image.Image, x: float, y: float, rx: float, ry: float, strength: float) -> None:
    """Darkens an ellipse (pixels) of the background in place, with a soft edge."""
    n = background.size[0]
    dark = Image.new("L", (n, n), 0)
    ImageDraw.Draw(dark).ellipse((x - rx, y - ry, x + rx, y + ry), fill=int(255 * strength))
    background.paste((12, 12, 24), (0, 0), dark.filter(ImageFilter.BoxBlur(n / 64)))


def _halo(layer: Image.Image, background: Image.Image) -> None:
    """Puts a soft dark rim behind the animal, so that white pets show on snow and black ones at night.

    A black pet on a dark ground gets a light rim instead: its coat already has light outlines, and here the
    surroundings are lifted a little.
    """
    n = layer.size[0]
    alpha = layer.getchannel("A")
    rim = alpha.filter(ImageFilter.BoxBlur(n / 56)).point([min(150, i * 2) for i in range(256)])
    small = np.asarray(background.resize((16, 16), Image.Resampling.BOX), np.float32)
    dark_scene = float(small[4:].mean()) < 75
    background.paste((120, 132, 170) if dark_scene else (30, 24, 30), (0, 0), rim)


def _occluder(kind: str, n: int, rng: np.random.Generator) -> Image.Image:
    """An RGBA layer with an object that stands in front of the animal."""
    colour, mask = Painter(n), Painter(n)
    x = float(rng.uniform(0.15, 0.85))

    def line(points: list[tuple[float, float]], width: float, fill: tuple[int, int, int]) -> None:
        colour.line(points, width, fill)
        mask.line(points, width, (255, 255, 255))

    if kind == "grass":
        for dx, lean, h in rng.uniform((-0.16, -0.08, 0.12), (0.16, 0.08, 0.36), (22, 3)).tolist():
            green = (int(50 + 60 * abs(dx) * 5), int(110 + 300 * h), 44)
            line([(x + dx, 1.0), (x + dx + lean * 0.4, 1 - h * 0.6), (x + dx + lean, 1.0 - h)], 0.018, green)
    elif kind == "pole":
        tone = int(rng.integers(60, 170))
        line([(x, 0.0), (x + 0.02, 1.0)], 0.055, (tone, tone, tone + 6))
        line([(x + 0.015, 0.0), (x + 0.035, 1.0)], 0.014, (tone // 2, tone // 2, tone // 2))
    elif kind == "ball":
        tint = tuple(int(c) for c in rng.integers(60, 250, 3))
        for p, fill in ((colour, tint), (mask, (255, 255, 255))):
            p.ellipse(x, 0.88, 0.12, 0.12, fill)  # type: ignore[arg-type]
        colour.ellipse(x - 0.04, 0.84, 0.03, 0.03, (255, 255, 255))
    else:
        wood = (150, 112, 74)
        for y in (0.8, 0.92):
            line([(0.0, y), (1.0, y)], 0.03, wood)
        for fx in np.arange(x % 0.25, 1.0, 0.25).tolist():
            line([(fx, 0.72), (fx, 1.0)], 0.045, (134, 98, 62))
    layer = colour.image.convert("RGBA")
    layer.putalpha(mask.image.getchannel(0))
    return layer


def _coat_texture(
    picture: np.ndarray, mask: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Hair: noise of two grain sizes on the animal only; float32 (n, n, 3) in and out."""
    n = picture.shape[0]
    fine, coarse = smooth_noise(n, n // 3, int(rng.integers(8))), smooth_noise(n, 9, 8 + int(rng.integers(8)))
    gain = 1.0 + strength * (mask / 255.0) * (0.24 * fine + 0.14 * coarse)
    return picture * gain[..., None]


def _camera(picture: np.ndarray, realism: float, rng: np.random.Generator) -> np.ndarray:
    """Blur, tint, vignette and sensor noise of a hand-held camera; float32 (n, n, 3) in and out."""
    n = picture.shape[0]
    radius = realism * float(rng.uniform(0.2, 0.85)) * n / 64
    if radius > 0.15:
        picture = blur(picture, radius)
    tint = 1.0 + realism * rng.uniform(-0.14, 0.14, 3).astype(np.float32)
    contrast = 1.0 + realism * float(rng.uniform(-0.22, 0.15))
    picture = ((picture - 118.0) * contrast + 118.0) * tint
    picture = picture * (1.0 + (vignette(n, 0.6) - 1.0) * (realism * float(rng.random())))
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    return picture + noise * (realism * float(rng.uniform(3.0, 10.0)))


def _crop(image: Image.Image, mask: Image.Image, realism: float, rng: np.random.Generator
          ) -> tuple[Image.Image, Image.Image]:  # fmt: skip
    """A closer framing that may cut off a part of the animal."""
    n = image.size[0]
    side = n * (1.0 - realism * float(rng.uniform(0.0, 0.26)))
    x, y = (float(v) * (n - side) for v in rng.random(2))
    box = (x, y, x + side, y + side)
    return (
        image.resize((n, n), Image.Resampling.BILINEAR, box),
        mask.resize((n, n), Image.Resampling.BILINEAR, box),
    )


def _compose(scene: Scene, pixels: int) -> tuple[Image.Image, Image.Image]:
    """Background, shadow, rim and animal: the RGB picture and the animal's mask, both (pixels, pixels)."""
    kind = find_breed(scene.breed)
    facing = 1 if scene.side == "right" else -1
    ground = GROUND + scene.y
    picture = draw_background(scene.background, 2 * pixels, scene.detail_seed).reduce(2)
    layer, scale = draw_animal(
        kind, scene.pose, facing, (scene.x, ground), scene.size, pixels, scene.detail_seed
    )
    _halo(layer, picture)
    width, strength = {"jumping": (0.5, 0.6), "sitting": (0.5, 0.42), "lying": (0.72, 0.42)}.get(
        scene.pose, (0.6, 0.42)
    )
    _shadow(picture, scene.x * pixels, (ground + 0.005) * pixels, width * scale, 0.07 * scale, strength)
    picture.paste(layer, (0, 0), layer)
    return picture, layer.getchannel("A")


def render(scene: Scene, size: int = 64) -> np.ndarray:
    """Draws a scene; a pure function of its arguments.

    With `scene.realism` > 0 the picture gets, with that strength, a *domain gap on purpose*: camera blur,
    sensor noise, an unusual tint, a vignette, a coat texture, a closer crop, and often an object in front of
    the animal. Experiments give their "real" pictures a realism of about 0.5 to 1 and the generator's
    training set about 0 to 0.2, so that synthetic data helps but is not real data, as with a real
    text-to-image model.

    Args:
        scene: what to draw.
        size: side of the picture in pixels, 16 to 1024; the breeds are designed for 64.

    Returns:
        uint8 array (size, size, 3), RGB.

    Raises:
        ValueError: if the scene has an unknown breed, pose, background, style, side or light, a realism
            outside 0 to 1, or if `size` is out of range.
    """
    _check(scene, size)
    rng = np.random.default_rng((scene.detail_seed, 3))
    picture, mask = _compose(scene, 2 * size)
    if scene.realism > 0.0:
        if rng.random() < 0.55 * scene.realism:
            thing = _occluder(OCCLUDERS[rng.integers(len(OCCLUDERS))], picture.size[0], rng)
            picture.paste(thing, (0, 0), thing)
        picture, mask = _crop(picture, mask, scene.realism, rng)
    array, cover = np.asarray(picture, np.float32), np.asarray(mask, np.float32)
    if scene.realism > 0.0:
        array = _coat_texture(array, cover, scene.realism, rng)
    gain, lift = LIGHT_GAIN[scene.light]
    array = array * np.array(gain, np.float32) + np.float32(lift)
    array = apply_style(scene.style, array, cover, scene.detail_seed)
    array = 0.25 * (array[::2, ::2] + array[1::2, ::2] + array[::2, 1::2] + array[1::2, 1::2])
    if scene.realism > 0.0:
        array = _camera(array, scene.realism, rng)
    return np.clip(np.round(array), 0, 255).astype(np.uint8)


def sample_scene(
    seed: int,
    index: int,
    *,
    breeds: Sequence[str],
    poses: Sequence[str] = POSES,
    backgrounds: Sequence[str] = BACKGROUNDS,
    styles: Sequence[str] = ("photo",),
    realism: tuple[float, float] = (0.0, 0.0),
) -> Scene:
    """Draws scene number `index` of the endless stream `seed`; every index is independent of all others.

    Args:
        seed: the stream, >= 0.
        index: position in the stream, >= 0.
        breeds: names to choose from, uniformly; so for `poses`, `backgrounds` and `styles`.
        poses: values of `POSES`.
        backgrounds: values of `BACKGROUNDS`.
        styles: values of `STYLES`.
        realism: lower and upper end of the uniform distribution of `Scene.realism`.

    Returns:
        the scene.

    Raises:
        ValueError: if a sequence is empty, or seed or index is negative.
    """
    for name, values in (
        ("breeds", breeds),
        ("poses", poses),
        ("backgrounds", backgrounds),
        ("styles", styles),
    ):
        if not len(values):
            raise ValueError(f"{name} is empty; give at least one value to choose from")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must be >= 0, got {seed} and {index}")
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))

    def pick(values: Sequence[str]) -> str:
        return values[int(rng.integers(len(values)))]

    return Scene(
        breed=pick(breeds), pose=pick(poses), background=pick(backgrounds), style=pick(styles),
        side=pick(SIDES), light=pick(LIGHTS),
        x=float(rng.uniform(0.38, 0.62)), y=float(rng.uniform(-0.05, 0.05)),
        size=float(rng.uniform(0.8, 1.2)), detail_seed=int(rng.integers(2**63 - 1)),
        realism=float(rng.uniform(*realism)),
    )  # fmt: skip
