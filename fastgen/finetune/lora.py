"""`fastgen finetune lora`: a LoRA for UNet and text encoder that knows the classes of a few pictures."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fastgen import __version__
from fastgen.class_words import slug, words_of
from fastgen.errors import FastgenError
from fastgen.files import sha256_json
from fastgen.finetune.batches import Batches
from fastgen.finetune.examples import Examples, read_examples
from fastgen.finetune.loss_plot import draw_loss
from fastgen.finetune.objective import Objective
from fastgen.finetune.optimize import anyone, new_accelerator, optimize
from fastgen.finetune.parts import TEXT_TARGETS, UNET_TARGETS, add_lora, load_trainable, write_lora
from fastgen.finetune.pictures import Latents
from fastgen.finetune.progress import Progress
from fastgen.finetune.recipes import Recipe, recipe_of
from fastgen.finetune.samples import draw_samples
from fastgen.finetune.state import Folder
from fastgen.finetune.wording import fill
from fastgen.finetune.words import add_words, write_words

SAMPLES = 12
"""Pictures on a grid of samples."""
GUIDANCE = 2.0
"""Of the samples: BOB's and DataDream's."""


def lora(
    real: str | Path,
    *,
    out: str | Path,
    model: str = "mini",
    profile: str = "bob",
    captions: str | Path | None = None,
    shots: int | None = None,
    seed: int = 0,
    precision: str = "fp32",
    accumulate: int = 1,
    save_every: int = 100,
    sample_every: int | None = None,
    vae: str | Path | None = None,
    size: int | None = None,
    say: Callable[[str], None] = print,
    **changes: Any,
) -> Path:
    """Fine-tune a LoRA; the same command again goes on where it was stopped, or does nothing when it is done.

    On one machine with the same number of threads, a run that was killed and continued ends with the same bits. A
    step's batch, noise and timesteps depend on the seed and its number alone.

    Args:
        real: class folders, or a folder with such folders `train` and `test`; see `read_examples`.
        out: output folder: `pytorch_lora_weights.safetensors`, `finetune.json`, `log.jsonl`, `loss.png`, `samples/`
            and with words `words/`. With scope "class" one such folder per class in it.
        model: as for `fastgen build`: Stable Diffusion 1.x or 2.x, predicting noise or v.
        profile: "bob", "datadream", "diff-mix" or "real-fake".
        captions: JSONL file with the attributes; None looks in the image folder.
        shots: pictures per class, chosen by the seed; None takes all.
        seed: of everything, >= 0.
        precision: "fp32", "fp16" (GPU) or "bf16" of the computation; what is trained stays float32.
        accumulate: pieces in which each process computes its part of a batch; less memory, the same step.
        save_every: steps between two checkpoints.
        sample_every: steps between two grids of samples; None draws five in all, 0 none.
        vae, size: another VAE; another side of the pictures than the model's own.
        say: gets a line now and then.
        **changes: fields of `Recipe` that replace the profile's.

    Returns:
        `out` as a path.

    Raises:
        FastgenError: something does not fit; its subclasses say what.
        Interrupted: stopped by a signal after saving.
    """
    recipe = recipe_of(profile, changes)
    _check_numbers(seed=seed, accumulate=accumulate, save_every=save_every, sample_every=sample_every)
    examples = read_examples(
        Path(real), captions=Path(captions) if captions else None, needed=recipe.needed, shots=shots, seed=seed
    )
    accelerator = new_accelerator(precision)
    tell = say if accelerator.is_main_process else _silent
    if recipe.scope == "class" and recipe.preserve and recipe.template is None:
        tell("one LoRA per class learns only the backgrounds and poses of its class; BOB trains one for the data set")
    names = examples.classes if recipe.scope == "class" else (None,)
    folders = words_of(examples.classes)  # also refuses classes whose files would have one name
    for name in names:
        folder = Path(out) if name is None else Path(out) / slug(folders[name])
        run = LoraRun(
            examples if name is None else examples.of_class(name), recipe, folder,
            model=model, vae=vae, size=size, seed=seed, precision=precision, accelerator=accelerator, say=tell,
        )  # fmt: skip
        run.train(accumulate=accumulate, save_every=save_every, sample_every=sample_every)
    return Path(out)


def _silent(line: str) -> None:
    """Say nothing: the first process speaks for all."""


def _check_numbers(*, seed: int, accumulate: int, save_every: int, sample_every: int | None) -> None:
    numbers = {"seed": (seed, 0), "accumulate": (accumulate, 1), "save_every": (save_every, 1)}
    for name, (value, low) in {**numbers, "sample_every": (sample_every, 0)}.items():
        if value is not None and value < low:
            raise FastgenError(f"{name} is {value}; it must be at least {low}")


class LoraRun:
    """One LoRA: of a data set, or of one class."""

    def __init__(
        self,
        examples: Examples,
        recipe: Recipe,
        out: Path,
        *,
        model: str,
        vae: str | Path | None,
        size: int | None,
        seed: int,
        precision: str,
        accelerator: Any,
        say: Callable[[str], None],
    ) -> None:
        """Prepare; nothing is loaded yet, but for what the model's files are."""
        self.examples, self.recipe, self.seed = examples, recipe, seed
        self.accelerator, self.say = accelerator, say
        self.words = words_of(examples.classes) if recipe.words else {}
        self.batches = Batches(count=len(examples.rows), batch=recipe.batch, seed=seed)
        self.optimizer = recipe.optimizer(self.batches.steps_per_epoch)
        self.optimizer.check()
        self.captions = [self._caption(row.class_, row.attributes) for row in examples.rows]
        self.parts = load_trainable(model, vae=vae, size=size)
        self.folder = Folder(out, self._settings(precision))

    def _caption(self, class_: str, attributes: Any) -> str:
        shown = self.words.get(class_, class_)
        values = {**attributes, "class": shown, "descriptor": self.recipe.descriptor or ""}
        return fill(self.recipe.caption_template, values, article=self.recipe.article)

    def _settings(self, precision: str) -> dict[str, Any]:
        return {
            "kind": "lora",
            "model": self.parts.sources.to_json()["model"],
            "size": self.parts.size,
            "classes": list(self.examples.classes),
            "pictures": len(self.examples.rows),
            "data_sha256": self.examples.sha256,
            "captions_sha256": sha256_json(self.captions),
            "recipe": {**self.recipe.to_json(), "steps": self.optimizer.steps},
            "steps_per_epoch": self.batches.steps_per_epoch,
            "seed": self.seed,
            "precision": precision,
        }

    def train(self, *, accumulate: int, save_every: int, sample_every: int | None) -> None:
        """Train to the end, and write what came of it."""
        done = self.accelerator.is_main_process and self.folder.open()
        if anyone(done, self.accelerator):
            self.say(f"{self.folder.path} is up to date: this fine-tuning is finished; nothing to do")
            return
        self._say_what()
        began = time.monotonic()
        device = self.accelerator.device
        self.parts.to(device)
        parameters, embedding = self._add_adapters()
        objective = self._objective(device)
        every = max(1, self.optimizer.steps // 5) if sample_every is None else sample_every

        def after(step: int) -> None:
            if every and (step % every == 0 or step == self.optimizer.steps):
                self._draw(step)

        quiet = not self.accelerator.is_main_process
        with Progress(self.folder.path.name, self.optimizer.steps, say=self.say, quiet=quiet) as progress:
            optimize(
                objective, parameters, self.optimizer, self.folder, accelerator=self.accelerator,
                accumulate=accumulate, save_every=save_every, after=after, progress=progress,
            )  # fmt: skip
        if self.accelerator.is_main_process:
            self._write(embedding, seconds=time.monotonic() - began)
        self.accelerator.wait_for_everyone()

    def _say_what(self) -> None:
        rows, steps = self.examples.rows, self.optimizer.steps
        self.say(
            f"{self.folder.path}: {len(rows)} pictures of {len(self.examples.classes)} classes, {steps} steps of "
            f"{min(self.recipe.batch, len(rows))}, captions such as {self.captions[0]!r}"
        )
        long = self.parts.too_long(self.captions)
        if long:
            self.say(f"{len(long)} captions are longer than the text encoder reads; the end of {long[0]!r} is lost")

    def _add_adapters(self) -> tuple[dict[str, nn.Parameter], Any]:
        """Add LoRA layers and words; returns what is trained, by name, and the words' embedding if there is one."""
        recipe, parts = self.recipe, self.parts
        alpha = recipe.alpha or float(recipe.rank)
        found: dict[str, nn.Parameter] = {}
        modules = [("unet", parts.unet, UNET_TARGETS)]
        modules += [("text_encoder", parts.text_encoder, TEXT_TARGETS)] if recipe.text_encoder else []
        for number, (part, module, targets) in enumerate(modules):
            layers = add_lora(module, targets, rank=recipe.rank, alpha=alpha, seed=2 * self.seed + number)
            found |= {f"{part}.{name}": value for name, value in layers.items()}
        if not self.words:
            return found, None
        embedding = add_words(
            list(self.words.values()), tokenizer=parts.tokenizer, text_encoder=parts.text_encoder, like=recipe.init_word
        )
        return {**found, "words": embedding.vectors}, embedding

    def _objective(self, device: Any) -> Objective:
        recipe = self.recipe
        latents = Latents(
            self.parts.vae, self.examples.rows, size=self.parts.size, fit=recipe.fit, flip=recipe.flip, device=device
        )

        def captions(step: int, indices: np.ndarray) -> Sequence[str]:
            return [self.captions[i] for i in indices]

        return Objective(
            parts=self.parts, latents=latents, batches=self.batches, captions=captions,
            min_snr=recipe.min_snr, dist_match=recipe.dist_match,
        )  # fmt: skip

    def _draw(self, step: int) -> None:
        """Draw samples and the loss."""
        prompts = [self.captions[i] for i in self._shown()]
        path = self.folder.path / "samples" / f"{step:06d}.png"
        draw_samples(path, self.parts, prompts, device=self.accelerator.device, guidance=GUIDANCE, seed=self.seed)
        self._plot()

    def _shown(self) -> list[int]:
        """Pictures whose captions the samples are drawn from: one per class while there are few."""
        first = {row.class_: i for i, row in reversed(list(enumerate(self.examples.rows)))}
        chosen = sorted(first.values())
        if len(chosen) == 1:
            return list(range(min(SAMPLES, len(self.examples.rows))))
        return [chosen[i * len(chosen) // SAMPLES] for i in range(SAMPLES)] if len(chosen) > SAMPLES else chosen

    def _plot(self) -> None:
        log = self.folder.read_log()
        if log:
            draw_loss(self.folder.path / "loss.png", {"loss": log}, title=f"LoRA of {self.folder.path.name}")

    def _write(self, embedding: Any, *, seconds: float) -> None:
        text = self.parts.text_encoder if self.recipe.text_encoder else None
        write_lora(self.folder.path, unet=self.parts.unet, text_encoder=text)
        if embedding is not None:
            vectors = dict(zip(self.words.values(), embedding.vectors, strict=True))
            write_words(self.folder.path / "words", vectors)
        self._plot()
        log = self.folder.read_log()
        tail = [line["loss"] for line in log[-max(1, len(log) // 20) :]]
        finished = {"steps": self.optimizer.steps, "loss": sum(tail) / len(tail), "seconds": round(seconds, 1)}
        machine = {"fastgen_version": __version__, "processes": self.accelerator.num_processes}
        self.folder.write_about(finished={**finished, **machine})
        self.folder.drop_checkpoint()
        self.say(f"{self.folder.path} is ready: fastgen build --lora {self.folder.path.name}={self.folder.path}")
