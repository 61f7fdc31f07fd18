"""The contenders of bench/throughput.py: each draws the same rows from the same weights, in a process of its own.

    python bench/peers.py NAME work.json           # draws all rows `repeats` times; prints one line of JSON at the end
    python bench/peers.py NAME work.json --turns   # waits for its turns: one line of JSON for every line of input

Building an engine, loading, exporting, compiling and a warm-up are not timed; encoding prompts and
references is. Lines of input are `draw N` (the first N rows), `parts` (seconds of fastgen's UNet and decoder alone),
`batches N ...` (images/s of drawing N rows at once), `profile FILE` (a table of two steps' kernels), `ceiling` (what
the GPU does with a plain matrix product) and `attention` (its kernels for it).
"""

import json
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.hardware import versions  # noqa: E402
from bench.pipelines import load_pipeline, loading, picture, settings  # noqa: E402


class Contender(ABC):
    """Draws rows; a subclass says how.

    Attributes:
        failed: rows of the last `draw` whose image was NaN or of one colour; the work was done all the same.
    """

    failed = 0
    one_a_call = False
    """Whether it draws one row a call, and not as many as the work says."""
    warm_ups = 1
    """Batches drawn before time counts."""
    packages: tuple[str, ...] = ("torch", "diffusers", "transformers")
    """Whose versions matter."""

    def __init__(self, work: dict[str, Any]) -> None:
        """Load the model.

        Args:
            work: content of work.json: model, ip_adapter, build (arguments of fastgen's build), size, steps, guidance,
                batch, precision, repeats, and rows of {"prompt", "negative_prompt", "seed", "lambda", "reference"}
                (a picture's path).
        """
        self.work = work
        self.batch = 1 if self.one_a_call else int(work["batch"])
        self.load()

    @abstractmethod
    def load(self) -> None:
        """Get ready; not timed."""

    @abstractmethod
    def draw(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Images of rows, uint8 (N, H, W, 3)."""

    def resize(self, batch: int) -> None:
        """Draw so many rows a call from now on."""
        self.batch = batch


class Fastgen(Contender):
    """Our engine, every row with its own lambda."""

    with_reference = True
    compile = False
    packages = ("torch", "onnxruntime", "onnxruntime-gpu")

    def load(self) -> None:
        from fastgen.engine.build import build
        from fastgen.engine.load import load_engine

        self.folder = build(**self.work["build"], compile=self.compile, say=_say)
        self.engine = load_engine(self.folder)

    def resize(self, batch: int, **changes: Any) -> None:
        """Open the same weights for other calls, without another comparison with the model."""
        from fastgen.engine.load import Engine
        from fastgen.engine.torch_backend import TorchBackend

        super().resize(batch)
        spec = replace(self.engine.spec, batch=2 * batch, **changes)  # guidance takes two rows
        del self.engine
        self.engine = Engine(self.folder, spec, TorchBackend(self.folder, spec))

    def draw(self, rows: list[dict[str, Any]]) -> np.ndarray:
        from PIL import Image

        from fastgen.generate.batch import complete_row
        from fastgen.generate.run import generate
        from fastgen.records import Row
        from fastgen.shards.schema import GOOD

        made = []
        for number, row in enumerate(rows):
            obj = {"id": str(number), "class": "pet", "prompt": row["prompt"], "seed": row["seed"]}
            obj |= {key: self.work[key] for key in ("steps",)} | {"guidance_scale": self.work["guidance"]}
            obj |= {"negative_prompt": row["negative_prompt"], "scheduler": "ddim"}
            if self.with_reference:
                obj |= {"lambda": row["lambda"], "ref": {"id": row["reference"]}}
            made.append(complete_row(Row.from_json(obj, None), self.engine.spec, self.engine.scheduler_config))
        samples = list(generate(made, self.engine, lambda ref: Image.open(ref.id).convert("RGB"), batch=self.batch))
        self.failed = sum(sample.status != GOOD for sample in samples)
        side = self.work["size"]
        nothing = np.zeros((side, side, 3), dtype=np.uint8)
        images = {sample.row.id: nothing if sample.image is None else sample.image for sample in samples}
        return np.stack([images[str(number)] for number in range(len(rows))])


class FastgenCompiled(Fastgen):
    """Our engine built with `--compile`."""

    compile = True


class FastgenCompiledLarge(Fastgen):
    """The same, four times as many rows at once."""

    def load(self) -> None:
        from fastgen.engine.torch_backend import compile_plan

        super().load()
        self.resize(4 * self.batch, plan=compile_plan())


class FastgenText(Fastgen):
    """Our engine without references: the adapter's branch is there, its weight is 0."""

    with_reference = False


class FastgenNoAdapter(FastgenText):
    """Our engine built without the adapter, for who has no references: the same graph as the pipelines below."""

    def load(self) -> None:
        self.work["build"] |= {"model": text_model(self.work), "ip_adapter": None}
        super().load()


class Dalda(Contender):
    """diffusers as DALDA drives it: one image a call, lambda set on the pipeline before each."""

    one_a_call = True

    def load(self) -> None:
        import torch
        from diffusers import DDIMScheduler, StableDiffusionPipeline
        from transformers import CLIPVisionModelWithProjection

        adapter, precision = Path(self.work["ip_adapter"]), self.work["precision"]
        self.pipe = load_pipeline(StableDiffusionPipeline, self.work, precision)
        self.pipe.scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        if self.pipe.image_encoder is None:
            options = loading(self.work, precision)
            encoder = CLIPVisionModelWithProjection.from_pretrained(adapter.parent / "image_encoder", **options)
            self.pipe.register_modules(image_encoder=encoder)
        self.pipe.load_ip_adapter(str(adapter.parent), subfolder="", weight_name=adapter.name)
        self.pipe.to("cuda" if torch.cuda.is_available() else "cpu")
        self.pipe.set_progress_bar_config(disable=True)

    def draw(self, rows: list[dict[str, Any]]) -> np.ndarray:
        images = np.concatenate([self._call(rows[i : i + self.batch]) for i in range(0, len(rows), self.batch)])
        self.failed = int((np.ptp(images.reshape(len(images), -1), axis=1) <= 1).sum())
        return images

    def _set_lambda(self, rows: list[dict[str, Any]]) -> None:
        self.pipe.set_ip_adapter_scale(rows[0]["lambda"])

    def _call(self, rows: list[dict[str, Any]]) -> np.ndarray:
        import torch

        self._set_lambda(rows)
        images = self.pipe(
            [row["prompt"] for row in rows],
            negative_prompt=[row["negative_prompt"] for row in rows],
            generator=[torch.Generator().manual_seed(row["seed"]) for row in rows],
            **self._references(rows),
            **settings(self.work),
        ).images
        return np.stack([np.asarray(image) for image in images])

    def _references(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"ip_adapter_image": picture(rows[0]["reference"], self.work["size"])}


class Diffusers(Dalda):
    """diffusers at its own best batch: every row its own reference, one lambda for all rows of the work."""

    one_a_call = False

    def load(self) -> None:
        super().load()
        self.pipe.set_ip_adapter_scale(self.work["rows"][0]["lambda"])

    def _set_lambda(self, rows: list[dict[str, Any]]) -> None:
        """Leave it: another lambda would compile the UNet again."""

    def _references(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        pictures = [picture(row["reference"], self.work["size"]) for row in rows]
        pixels = self.pipe.feature_extractor(pictures, return_tensors="pt").pixel_values
        with torch.no_grad():
            embeds = self.pipe.image_encoder(pixels.to(self.pipe.device, self.pipe.dtype)).image_embeds[:, None]
        if self.work["guidance"] > 1:
            embeds = torch.cat([torch.zeros_like(embeds), embeds])
        return {"ip_adapter_image_embeds": [embeds]}


class Compiled(Diffusers):
    """The same with UNet and VAE decoder through torch.compile, channels last; on a GPU with CUDA graphs."""

    warm_ups = 2  # torch records a graph when it is called the second time, and the decoder is called once a batch

    def load(self) -> None:
        import torch

        super().load()
        mode = "reduce-overhead" if torch.cuda.is_available() else None
        for part in (self.pipe.unet, self.pipe.vae):
            part.to(memory_format=torch.channels_last)
        self.pipe.unet = torch.compile(self.pipe.unet, mode=mode, dynamic=False)
        self.pipe.vae.decode = torch.compile(self.pipe.vae.decode, mode=mode, dynamic=False)


class Optimum(Contender):
    """optimum-onnx's pipeline in ONNX Runtime, without image prompts, which it does not have."""

    packages = ("optimum-onnx", "optimum", "onnxruntime", "onnxruntime-gpu", "diffusers", "transformers", "torch")

    def load(self) -> None:
        from optimum.onnxruntime import ORTStableDiffusionPipeline

        self.pipe = self._load(ORTStableDiffusionPipeline)

    def _load(self, kind: Any, **options: Any) -> Any:
        from diffusers import DDIMScheduler

        cache = Path(self.work["folder"]) / kind.__name__
        if not cache.exists():
            kind.from_pretrained(text_model(self.work), export=True, **options).save_pretrained(cache)
        pipe = kind.from_pretrained(cache, **options)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def draw(self, rows: list[dict[str, Any]]) -> np.ndarray:
        import torch

        parts = [rows[i : i + self.batch] for i in range(0, len(rows), self.batch)]
        images = []
        for part in parts:
            images += self.pipe(
                [row["prompt"] for row in part],
                negative_prompt=[row["negative_prompt"] for row in part],
                generator=[torch.Generator().manual_seed(row["seed"]) for row in part],
                **settings(self.work),
            ).images
        return np.stack([np.asarray(image) for image in images])


class OpenVino(Optimum):
    """optimum-intel's OpenVINO pipeline at a static shape; needs an environment of its own."""

    packages = ("optimum-intel", "optimum", "openvino", "diffusers", "transformers", "torch")

    def load(self) -> None:
        from optimum.intel import OVStableDiffusionPipeline

        hint = {"fp32": "f32", "bf16": "bf16"}[self.work["precision"]]
        self.pipe = self._load(OVStableDiffusionPipeline, compile=False, ov_config={"INFERENCE_PRECISION_HINT": hint})
        side = self.work["size"]
        self.pipe.reshape(batch_size=self.batch, height=side, width=side, num_images_per_prompt=1)
        # its decoder would be left at one image for every prompt, and then refuses the batch that the pipeline gives it
        decoder = self.pipe.vae_decoder
        decoder.model = self.pipe._reshape_vae_decoder(decoder.model, side, side, num_images_per_prompt=self.batch)
        self.pipe.compile()


CONTENDERS: dict[str, type[Contender]] = {
    "fastgen": Fastgen,
    "fastgen-compiled": FastgenCompiled,
    "fastgen-compiled-large": FastgenCompiledLarge,
    "fastgen-text": FastgenText,
    "fastgen-no-adapter": FastgenNoAdapter,
    "dalda": Dalda,
    "diffusers": Diffusers,
    "compiled": Compiled,
    "optimum": Optimum,
    "openvino": OpenVino,
}


def text_model(work: dict[str, Any]) -> str:
    """Folder of the model in float32 without its image encoder, which the exporters of optimum cannot take."""
    from diffusers import StableDiffusionPipeline

    folder = Path(work["folder"]) / "text-model"
    if not (folder / "model_index.json").exists():
        load_pipeline(StableDiffusionPipeline, work, "fp32", image_encoder=None).save_pretrained(folder)
    return str(folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _tell(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def timed(contender: Contender, rows: list[dict[str, Any]]) -> tuple[float, np.ndarray]:
    """Seconds for drawing rows, and the images; an image on the host is one that the GPU is done with."""
    start = time.perf_counter()
    images = contender.draw(rows)
    return time.perf_counter() - start, images


def warm_up(contender: Contender) -> None:
    """Draw batches of as many steps as `warm_up_steps` of the work says, or as the work itself has."""
    work = contender.work
    steps, work["steps"] = work["steps"], work.get("warm_up_steps", work["steps"])
    for _ in range(contender.warm_ups):
        contender.draw(work["rows"][: contender.batch])
    work["steps"] = steps


def batch_speed(contender: Contender, batch: int) -> float:
    """Images/s of one batch; the second one is timed, with a backend that was made for it."""
    rows = contender.work["rows"][:batch]
    contender.resize(batch)
    steps, contender.work["steps"] = contender.work["steps"], 2
    contender.draw(rows)
    contender.work["steps"] = steps
    return round(len(rows) / timed(contender, rows)[0], 3)


def take_turns(contender: Contender) -> None:
    """Do what each line of input says, until there is no more."""
    from bench import measure

    for line in sys.stdin:
        command, *words = line.split()
        if command == "draw":
            rows = contender.work["rows"][: int(words[0])]
            seconds, _ = timed(contender, rows)
            _tell(rows=len(rows), seconds=round(seconds, 4), failed=contender.failed, **measure.memory())
        elif command == "parts":
            _tell(**measure.parts(contender.engine))  # type: ignore[attr-defined]
        elif command == "batches":
            _tell(images_per_second={word: batch_speed(contender, int(word)) for word in words})
        elif command == "profile":
            _tell(table=measure.profile(contender, Path(words[0])))
        elif command == "ceiling":
            _tell(**measure.ceiling())
        elif command == "attention":
            _tell(**measure.attention())
        else:
            sys.exit(f"unknown command {command!r}")


def main() -> None:
    """Load, warm up, and draw all rows several times, or as input says."""
    name, path, *flags = sys.argv[1:]
    work = json.loads(Path(path).read_text())
    started = time.perf_counter()
    contender = CONTENDERS[name](work)
    warm_up(contender)
    ready = round(time.perf_counter() - started, 2)
    if flags == ["--turns"]:
        from bench.measure import share

        share()
        _tell(ready_seconds=ready)
        take_turns(contender)
        return
    seconds = []
    for _ in range(work["repeats"]):
        took, images = timed(contender, work["rows"])
        seconds.append(took)
    np.save(Path(work["folder"]) / f"{name}.npy", images)
    _tell(ready_seconds=ready, seconds=seconds, failed=contender.failed, versions=versions(*contender.packages))


if __name__ == "__main__":
    main()
