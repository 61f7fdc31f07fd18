"""`fastgen finetune textual-inversion`: a word for every class, learnt from its pictures alone (DA-Fusion's tokens).

Textual inversion (arXiv 2208.01618): the model stays as it is; only the vector of one new word is trained.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fastgen import __version__
from fastgen.class_words import words_of
from fastgen.engine.embeddings import add_embeddings, parse_embeddings
from fastgen.errors import FastgenError
from fastgen.finetune.batches import Batches
from fastgen.finetune.examples import Example, Examples, read_examples
from fastgen.finetune.loss_plot import draw_loss
from fastgen.finetune.objective import Objective
from fastgen.finetune.optimize import Optimizer, anyone, new_accelerator, optimize
from fastgen.finetune.parts import Parts, load_trainable
from fastgen.finetune.pictures import FITS, Latents
from fastgen.finetune.progress import Progress
from fastgen.finetune.samples import draw_samples
from fastgen.finetune.state import Folder
from fastgen.finetune.wording import PHOTOS, fill
from fastgen.finetune.words import WordEmbedding, add_words, write_words
from fastgen.seeds import row_seed

REPEATS = 100
"""How often an epoch sees a picture, so that one picture fills a batch: diffusers' own default."""
SHOWN = 6
"""Classes on the grid of samples, each drawn twice."""
GUIDANCE = 7.5


def textual_inversion(
    real: str | Path,
    *,
    out: str | Path,
    model: str = "mini",
    shots: int | None = None,
    seed: int = 0,
    steps: int = 1000,
    batch: int = 4,
    lr: float = 2e-3,
    init_word: str = "the",
    fit: str = "squash",
    flip: bool = True,
    precision: str = "fp32",
    accumulate: int = 1,
    save_every: int = 100,
    samples: bool = True,
    vae: str | Path | None = None,
    size: int | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Learn one word `<class_name>` per class; the same command again goes on where it was stopped.

    Every class is trained on its own, from the same start, on a caption drawn from `wording.PHOTOS` for every picture.
    AdamW with weight decay 0.01, constant rate, no limit of the gradient. All other vectors of the text encoder keep
    their bits. The defaults are DA-Fusion's.

    Args:
        real: class folders, or a folder with such folders `train` and `test`.
        out: gets `<class_name>.safetensors` per class, `samples.png`, `loss.png`, and in `runs/` what every class was
            trained with and its log.
        model: as for `fastgen build`.
        shots: pictures per class, chosen by the seed; None takes all.
        seed: of everything, >= 0.
        steps, batch: per class; a batch may hold a picture several times.
        lr: rate. DA-Fusion's 5e-4 is multiplied by its batch of 4, which makes this 2e-3.
        init_word: the word whose vector the new ones start from.
        fit, flip: "squash" or "crop" to the model's size; mirror half of the pictures.
        precision: "fp32", "fp16" (GPU) or "bf16" of the computation.
        accumulate: pieces in which a process computes its part of a batch.
        save_every: steps between two checkpoints.
        samples: draw `samples.png` at the end.
        vae, size: another VAE; another side of the pictures than the model's own.
        say: gets a line now and then.

    Returns:
        `out` as a path; `fastgen build --embedding '<class_name>=OUT/class_name.safetensors'` takes its files.

    Raises:
        FastgenError: something does not fit; its subclasses say what.
        Interrupted: stopped by a signal after saving.
    """
    optimizer = Optimizer(steps=steps, lr=lr, clip=None)
    optimizer.check()
    _check(batch=batch, accumulate=accumulate, save_every=save_every, seed=seed, fit=fit)
    examples = read_examples(Path(real), shots=shots, seed=seed)
    words = words_of(examples.classes)
    accelerator = new_accelerator(precision)
    tell = say if accelerator.is_main_process else _silent
    parts = load_trainable(model, vae=vae, size=size)
    inversion = Inversion(parts, optimizer, Path(out), batch=batch, seed=seed, init_word=init_word, fit=fit, flip=flip)
    options = {"accelerator": accelerator, "accumulate": accumulate, "save_every": save_every, "say": tell}
    for name, word in words.items():
        inversion.learn(examples.of_class(name), word, precision=precision, **options)
    if accelerator.is_main_process:
        inversion.plot(list(words.values()))
        if samples and not (Path(out) / "samples.png").exists():
            inversion.draw(list(words.values()), device=accelerator.device)
        tell(f"{out} is ready: {len(words)} words, such as fastgen build --embedding '{inversion.argument(word)}'")
    accelerator.wait_for_everyone()
    return Path(out)


def _silent(line: str) -> None:
    """Say nothing: the first process speaks for all."""


def _check(*, batch: int, accumulate: int, save_every: int, seed: int, fit: str) -> None:
    numbers = {"batch": (batch, 1), "accumulate": (accumulate, 1), "save_every": (save_every, 1), "seed": (seed, 0)}
    for name, (value, low) in numbers.items():
        if value < low:
            raise FastgenError(f"{name} is {value}; it must be at least {low}")
    if fit not in FITS:
        raise FastgenError(f"fit is {fit!r}; it must be one of {', '.join(FITS)}")


class Inversion:
    """Learns words one after the other with one loaded model."""

    def __init__(
        self,
        parts: Parts,
        optimizer: Optimizer,
        out: Path,
        *,
        batch: int,
        seed: int,
        init_word: str = "the",
        fit: str = "squash",
        flip: bool = True,
    ) -> None:
        """Keep the settings that all words share."""
        self.parts, self.optimizer, self.out = parts, optimizer, out
        self.batch, self.seed, self.init_word, self.fit, self.flip = batch, seed, init_word, fit, flip
        self.base = parts.text_encoder.get_input_embeddings()
        self._model = parts.sources.to_json()["model"]

    def file(self, word: str) -> Path:
        """Where a word's vector is written."""
        return self.out / f"{word.strip('<>')}.safetensors"

    def argument(self, word: str) -> str:
        """What `fastgen build --embedding` takes."""
        return f"{word}={self.file(word)}"

    def run_folder(self, examples: Examples, word: str, precision: str) -> Folder:
        """The folder with the settings, checkpoint and log of a word."""
        settings = {
            "kind": "textual-inversion", "word": word, "model": self._model, "size": self.parts.size,
            "pictures": len(examples.rows), "data_sha256": examples.sha256, "steps": self.optimizer.steps,
            "batch": self.batch, "lr": self.optimizer.lr, "init_word": self.init_word, "fit": self.fit,
            "flip": self.flip, "seed": self.seed, "precision": precision,
        }  # fmt: skip
        return Folder(self.out / "runs" / word.strip("<>"), settings)

    def objective(self, examples: Sequence[Example], word: str, *, device: Any) -> tuple[Objective, WordEmbedding]:
        """Put a new word into the model, in place of the one before; returns its loss and its vector.

        Args:
            examples: the class's pictures.
            word: as prompts write it.
            device: where to compute.
        """
        self.parts.text_encoder.set_input_embeddings(self.base)
        parts = replace(self.parts, tokenizer=copy.deepcopy(self.parts.tokenizer))
        embedding = add_words([word], tokenizer=parts.tokenizer, text_encoder=parts.text_encoder, like=self.init_word)
        parts.to(device)
        seed = row_seed(self.seed, word)
        batches = Batches(count=len(examples), batch=self.batch, repeats=REPEATS, seed=seed)
        latents = Latents(parts.vae, examples, size=parts.size, fit=self.fit, flip=self.flip, device=device)

        def captions(step: int, indices: np.ndarray) -> list[str]:
            drawn = batches.stream("template", step).integers(len(PHOTOS), size=len(indices))
            return [fill(PHOTOS[i], {"class": word}) for i in drawn]

        return Objective(parts=parts, latents=latents, batches=batches, captions=captions), embedding

    def learn(
        self,
        examples: Examples,
        word: str,
        *,
        precision: str,
        accelerator: Any,
        accumulate: int,
        save_every: int,
        say: Callable[[str], None],
    ) -> None:
        """Learn one word and write its file, unless it is there already."""
        folder = self.run_folder(examples, word, precision)
        done = accelerator.is_main_process and folder.open() and self.file(word).is_file()
        if anyone(done, accelerator):
            say(f"{self.file(word)} is up to date")
            return
        objective, embedding = self.objective(examples.rows, word, device=accelerator.device)
        parameters: dict[str, nn.Parameter] = {"vectors": embedding.vectors}
        quiet = not accelerator.is_main_process
        with Progress(word, self.optimizer.steps, say=say, quiet=quiet) as progress:
            optimize(
                objective, parameters, self.optimizer, folder, accelerator=accelerator, accumulate=accumulate,
                save_every=save_every, progress=progress,
            )  # fmt: skip
        if accelerator.is_main_process:
            write_words(self.out, {word: embedding.vectors[0]})
            log = [line["loss"] for line in folder.read_log()]
            tail = log[-max(1, len(log) // 20) :]
            machine = {"fastgen_version": __version__, "processes": accelerator.num_processes}
            folder.write_about(finished={"steps": self.optimizer.steps, "loss": sum(tail) / len(tail), **machine})
            folder.drop_checkpoint()

    def plot(self, words: Sequence[str]) -> None:
        """Draw the losses of all words."""
        logs = {word: Folder(self.out / "runs" / word.strip("<>"), {}).read_log() for word in words}
        draw_loss(self.out / "loss.png", {w: log for w, log in logs.items() if log}, title="Textual inversion")

    def draw(self, words: Sequence[str], *, device: Any) -> None:
        """Draw every shown word twice, with the words as they were written."""
        shown = [words[i * len(words) // SHOWN] for i in range(SHOWN)] if len(words) > SHOWN else list(words)
        self.parts.text_encoder.set_input_embeddings(copy.deepcopy(self.base))
        parts = replace(self.parts, tokenizer=copy.deepcopy(self.parts.tokenizer))
        embeddings = parse_embeddings([self.argument(word) for word in shown])
        add_embeddings(embeddings, tokenizer=parts.tokenizer, text_encoder=parts.text_encoder)
        parts.to(device)
        prompts = [f"a photo of a {word}" for word in shown for _ in range(2)]
        draw_samples(self.out / "samples.png", parts, prompts, device=device, guidance=GUIDANCE, seed=self.seed)
