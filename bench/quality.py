"""What options that trade quality for speed cost: images per second beside what a judge says of the images.

Command:   python bench/quality.py --oracle out/mini --rows 185 --rounds 3 --guidance out/mini/guidance-lora
Hardware:  two virtual cores of an AMD EPYC
Result:    times plain: interval 0.2-0.8 1.17, ddim 12 steps 1.89, unipc 8 steps 2.74, unipc 4 steps 4.82, guidance
           in the weights and unipc 5 steps 7.79; breeds found: plain 87 %, these 88, 87, 88, 89 and 82 %
           (bench/results/quality-mini.json)

Every option draws the same rows with the embedded model: two thirds from captions in unseen wordings that name breed,
pose, background and style, one third from a caption and a reference picture with a lambda of 0.2 to 1. The rows are cut
into rounds; in each, every option draws its share, in another order, so that all of them meet the same machine.

    breed ... style   share of the caption rows in which the oracle (python -m repro.mini.oracle) finds what was named
    own breed         share of the reference rows in which it finds the breed of caption and reference
    CLIP-T, CLIP-I    mean cosine to the caption (caption rows) and to the reference (reference rows), embedded CLIP
    FD                Frechet distance of the embedded ResNet's features from renderings of PetWorld, all rows;
                      FD plain: from the images of the plain option. Few images bias it upwards, for all options alike
    PSNR              from the plain option's images, where the same noise leads to the same picture

`other seeds` is the plain option with other noise: what differs no more than that is no difference.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.hardware import hardware  # noqa: E402
from fastgen.clip import ScoringClip  # noqa: E402
from fastgen.engine.build import build  # noqa: E402
from fastgen.engine.load import Engine, load_engine  # noqa: E402
from fastgen.engine.model_files import EMBEDDED  # noqa: E402
from fastgen.engine.openvino_backend import require_openvino  # noqa: E402
from fastgen.errors import EngineError  # noqa: E402
from fastgen.files import atomic_write_text  # noqa: E402
from fastgen.generate.batch import complete_row  # noqa: E402
from fastgen.generate.run import generate  # noqa: E402
from fastgen.petworld.attributes import OXFORD_PETS, STYLES, Scene  # noqa: E402
from fastgen.petworld.captions import caption  # noqa: E402
from fastgen.petworld.render import render, sample_scene  # noqa: E402
from fastgen.records import Ref, Row  # noqa: E402
from fastgen.train.backbone import load_backbone  # noqa: E402
from repro.mini.oracle import HEADS, Oracle, judge, load_oracle  # noqa: E402

SCENE_SEED, REFERENCE_SEED, REAL_SEED = 5_000, 5_001, 5_002
"""Of scenes that neither the model nor the oracle has seen."""

NAMED = frozenset({"breed", "background", "pose", "style"})
PACKAGES = ("torch", "diffusers", "onnxruntime", "onnxruntime-gpu", "openvino")
MINI = EMBEDDED / "mini"


@dataclass(frozen=True)
class Option:
    """One way to draw the rows.

    Attributes:
        fields: what they say beside the caption.
        seed: a number that changes their noise.
        engine: one of ENGINES.
    """

    fields: dict[str, Any]
    seed: int = 0
    engine: str = "plain"


ENGINES = ("plain", "guidance", "bf16")
"""As built by default; with the LoRA of repro.mini.guidance; OpenVINO in bf16."""

ONCE = {"guidance_scale": 1.0}
"""The UNet runs once a step."""

OPTIONS: dict[str, Option] = {
    "plain": Option({}),
    "other seeds": Option({}, seed=1),
    "interval 0-0.6": Option({"guidance_interval": [0.0, 0.6]}),
    "interval 0.2-0.8": Option({"guidance_interval": [0.2, 0.8]}),
    "ddim, 12 steps": Option({"steps": 12}),
    "dpmsolver++_karras, 12 steps": Option({"steps": 12, "scheduler": "dpmsolver++_karras"}),
    "unipc, 8 steps": Option({"steps": 8, "scheduler": "unipc"}),
    "unipc, 5 steps": Option({"steps": 5, "scheduler": "unipc"}),
    "unipc, 4 steps": Option({"steps": 4, "scheduler": "unipc"}),
    "unipc, 3 steps": Option({"steps": 3, "scheduler": "unipc"}),
    "unipc, 8 steps, 0.2-0.8": Option({"steps": 8, "scheduler": "unipc", "guidance_interval": [0.2, 0.8]}),
    "no guidance": Option(ONCE),
    "in weights": Option(ONCE, engine="guidance"),
    "in weights, unipc, 8 steps": Option({"steps": 8, "scheduler": "unipc", **ONCE}, engine="guidance"),
    "in weights, unipc, 5 steps": Option({"steps": 5, "scheduler": "unipc", **ONCE}, engine="guidance"),
    "in weights, unipc, 4 steps": Option({"steps": 4, "scheduler": "unipc", **ONCE}, engine="guidance"),
    "bf16": Option({}, engine="bf16"),
    "bf16, unipc, 8 steps": Option({"steps": 8, "scheduler": "unipc"}, engine="bf16"),
}


@dataclass(frozen=True)
class Subject:
    """What a row is to show.

    Attributes:
        scene: what the caption names.
        text: the caption.
        reference: a picture of the same breed, or None.
        weight: lambda.
    """

    scene: Scene
    text: str
    reference: Image.Image | None
    weight: float


def subjects(count: int) -> list[Subject]:
    """Rows in turn: a photo, a picture in some style, and a photo with a reference."""
    found = []
    for i in range(count):
        breed, rng = OXFORD_PETS[i % len(OXFORD_PETS)], np.random.default_rng([SCENE_SEED, i])
        style = STYLES[1 + i % (len(STYLES) - 1)] if i % 3 == 1 else "photo"
        scene = sample_scene(SCENE_SEED, i, breeds=(breed,), styles=(style,))
        text, reference = caption(scene, rng, parts=NAMED, wording="unseen"), None
        if i % 3 == 2:
            reference = Image.fromarray(render(sample_scene(REFERENCE_SEED, i, breeds=(breed,))))
        found.append(Subject(scene, text, reference, round(float(rng.uniform(0.2, 1.0)), 3)))
    return found


def rows_of(option: Option, wanted: list[Subject], engine: Engine, first: int) -> list[Row]:
    """The rows of an option; row i has the number first + i, of which its noise is made."""
    rows = []
    for number, subject in enumerate(wanted, first):
        obj = {"id": str(number), "class": "pet", "prompt": subject.text, "seed": 10_000 * option.seed + number}
        if subject.reference is not None:
            obj |= {"ref": {"id": str(number)}, "lambda": subject.weight}
        obj |= option.fields
        rows.append(complete_row(Row.from_json(obj, None), engine.spec, engine.scheduler_config))
    return rows


def draw(
    names: list[str], engines: dict[str, Engine], wanted: list[Subject], *, rounds: int
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Draw all rows under every option.

    Args:
        names: of the options.
        engines: those of ENGINES that the options name.
        wanted: the rows.
        rounds: pieces of the rows.

    Returns:
        Images, uint8 (N, H, W, 3), and images per second of every round.
    """
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in names}
    speeds: dict[str, list[float]] = {name: [] for name in names}

    def load(ref: Ref) -> Image.Image:
        reference = wanted[int(ref.id)].reference
        assert reference is not None
        return reference

    for number, part in enumerate(np.array_split(np.arange(len(wanted)), rounds)):
        turn = number * len(names) // rounds
        for name in names[turn:] + names[:turn]:
            option = OPTIONS[name]
            engine, first = engines[option.engine], int(part[0])
            rows = rows_of(option, wanted[first : first + len(part)], engine, first)
            start = time.perf_counter()
            samples = {sample.row.id: sample.image for sample in generate(rows, engine, load)}
            took = time.perf_counter() - start
            images = [samples[row.id] for row in rows]
            pieces[name].append(np.stack([image for image in images if image is not None]))
            speeds[name].append(len(rows) / took)
            print(f"round {number + 1}, {name}: {speeds[name][-1]:.2f} images/s", flush=True)
    return {name: np.concatenate(parts) for name, parts in pieces.items()}, speeds


class Features(torch.nn.Module):
    """The embedded ResNet: uint8 (N, 3, H, W) -> float32 (N, D)."""

    def __init__(self) -> None:
        super().__init__()
        self._backbone = load_backbone("mini-resnet", device="cpu")
        self.num_features = self._backbone.dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features of images."""
        mean, std = (torch.tensor(x)[:, None, None] for x in (self._backbone.mean, self._backbone.std))
        return self._backbone.encode((images.float() / 255 - mean) / std)


class Judge:
    """Everything that says how good images are."""

    def __init__(self, oracle: Oracle, wanted: list[Subject], plain: np.ndarray) -> None:
        self._oracle, self._wanted, self._plain = oracle, wanted, plain
        self._clip = ScoringClip.load(MINI / "clip")
        self._text = np.array([subject.reference is None for subject in wanted])
        self._captions = self._clip.embed_texts([subject.text for subject in wanted])
        given = [subject.reference for subject in wanted if subject.reference is not None]
        self._references = self._clip.embed_images(given)
        kinds = [(subject.scene.breed, subject.scene.style) for subject in wanted] * 4
        scenes = [sample_scene(REAL_SEED, i, breeds=(b,), styles=(s,)) for i, (b, s) in enumerate(kinds)]
        features = Features()
        self._from_real = _distance_from(np.stack([render(scene) for scene in scenes]), features)
        self._from_plain = _distance_from(plain, features)

    def __call__(self, images: np.ndarray) -> dict[str, float]:
        """Numbers of one option's images, in the order of the rows."""
        found: dict[str, float] = {}
        judged = judge(self._oracle, images)
        for name, values in HEADS.items():
            right = judged[name] == [values.index(getattr(subject.scene, name)) for subject in self._wanted]
            found[name] = float(right[self._text].mean())
            if name == "breed":
                found["own_breed"] = float(right[~self._text].mean())
        embedded = self._clip.embed_images([Image.fromarray(image) for image in images])
        found["clip_t"] = float((embedded * self._captions)[self._text].sum(1).mean())
        found["clip_i"] = float((embedded[~self._text] * self._references).sum(1).mean())
        found["fd"], found["fd_plain"] = self._from_real(images), self._from_plain(images)
        errors = np.square(images.astype(np.float64) - self._plain).mean((1, 2, 3))
        found["psnr_db"] = float(np.mean(10 * np.log10(255**2 / np.maximum(errors, 1e-3))))
        return found


def _distance_from(images: np.ndarray, features: Features) -> Callable[[np.ndarray], float]:
    """What gives the Frechet distance of a set of images from this one."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=features, reset_real_features=False)
    metric.update(torch.from_numpy(images).permute(0, 3, 1, 2), real=True)

    def distance(others: np.ndarray) -> float:
        metric.reset()
        metric.update(torch.from_numpy(others).permute(0, 3, 1, 2), real=False)
        return float(metric.compute())

    return distance


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure what faster options cost in quality.")
    parser.add_argument("--oracle", type=Path, required=True, help="folder with oracle.pt, from repro.mini.oracle")
    parser.add_argument("--rows", type=int, default=185)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--guidance", type=Path, help="of repro.mini.guidance's LoRA, for the options in weights")
    parser.add_argument("--options", nargs="+", choices=OPTIONS, metavar="OPTION", help="default: all that can run")
    parser.add_argument("--images", type=Path, help="folder for the images of every option, as .npy")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "quality-mini.json")
    options = parser.parse_args()
    if options.options is None:
        runs = {"plain": True, "guidance": options.guidance is not None, "bf16": can_bf16()}
        options.options = [name for name, option in OPTIONS.items() if runs[option.engine]]
    if not options.guidance and any(OPTIONS[name].engine == "guidance" for name in options.options):
        parser.error("the options in weights need --guidance FOLDER, from python -m repro.mini.guidance")
    return options


def can_bf16() -> bool:
    """Whether OpenVINO is here and this CPU has instructions for bf16."""
    try:
        require_openvino("bf16")
    except EngineError:
        return False
    return True


def load_engines(names: set[str], guidance: Path | None) -> dict[str, Engine]:
    """The engines that are needed, of the embedded model and warmed up."""
    how: dict[str, dict[str, Any]] = {
        "plain": {},
        "guidance": {"lora": [f"guidance={guidance}"]},
        "bf16": {"backend": "openvino", "precision": "bf16"},
    }
    engines = {name: load_engine(build("mini", **how[name])) for name in ENGINES if name in names}
    for engine in engines.values():
        rows = rows_of(Option({}), subjects(3), engine, 0)
        list(generate(rows, engine, lambda ref: Image.new("RGB", (64, 64))))
    return engines


def main() -> None:
    """Draw, judge, print the table, write the JSON."""
    options = parse()
    command, machine = shlex.join(["python", "bench/quality.py", *sys.argv[1:]]), hardware(*PACKAGES)
    print(f"command:  {command}\nhardware: {', '.join(f'{k} {v}' for k, v in machine.items())}")
    machine.pop("load_average")  # of the minutes before the first image, which took no part
    names, wanted = list(dict.fromkeys(["plain", *options.options])), subjects(options.rows)
    engines = load_engines({OPTIONS[name].engine for name in names}, options.guidance)
    images, speeds = draw(names, engines, wanted, rounds=options.rounds)
    examine, results = Judge(load_oracle(options.oracle), wanted, images["plain"]), {}
    timed = _speeds(speeds)
    for name in names:
        results[name] = {key: round(value, 4) for key, value in {**timed[name], **examine(images[name])}.items()}
        if options.images is not None:
            options.images.mkdir(parents=True, exist_ok=True)
            np.save(options.images / f"{name}.npy", images[name])
    _print(results)
    spec = engines["plain"].spec
    settings = {"rows": options.rows, "rounds": options.rounds, "batch": spec.batch, "plain": spec.defaults}
    report = {"command": command, "hardware": machine, "settings": settings, "results": results}
    print(f"wrote {atomic_write_text(options.out, json.dumps(report, indent=2) + chr(10))}")


def _speeds(speeds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Option -> median, least and most of its images per second in every round, and how many times the plain one's."""
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    return {
        name: {
            "images_per_second": medians[name],
            "min": min(found),
            "max": max(found),
            "times_plain": medians[name] / medians["plain"],
        }
        for name, found in speeds.items()
    }


def _print(results: dict[str, dict[str, float]]) -> None:
    shown = [key for key in next(iter(results.values())) if key not in ("min", "max")]
    print(f"{'':30}" + "".join(f"{key.replace('images_per_second', 'images/s'):>12}" for key in shown))
    for name, row in results.items():
        print(f"{name:30}" + "".join(f"{row[key]:12.3f}" for key in shown))


if __name__ == "__main__":
    main()
