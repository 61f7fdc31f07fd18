"""The training loop: one network, its draws, and checkpoints from which it goes on exactly."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgen.errors import DataError, OutputError
from fastgen.files import atomic_write_bytes
from fastgen.job import StopSignal
from fastgen.train.devices import new_accelerator
from fastgen.train.images import Images
from fastgen.train.loss import Targets, image_weights, mix_parts, weighted_loss
from fastgen.train.metrics import Accuracy
from fastgen.train.network import learnt_state, load_learnt, start_training
from fastgen.train.optimizer import LearningRate, make_optimizer
from fastgen.train.recipe import Recipe
from fastgen.train.sampling import Draws
from fastgen.train.transforms import seeded

CHECKPOINT_SECONDS = 120.0

Evaluate = Callable[[nn.Module], Accuracy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A trained network.

    Attributes:
        network: at its last step, on the device it was trained on.
        loss: mean training loss of the last tenth of the steps.
        history: step and accuracy of every evaluation, in order.
        best: state and step of the evaluation with the highest macro accuracy, the first of equals; None
            where nothing was evaluated, or the best was not kept.
    """

    network: nn.Module
    loss: float
    history: list[tuple[int, Accuracy]]
    best: tuple[dict[str, Tensor], int] | None


def fit(
    images: Images,
    targets: Targets,
    draws: Draws,
    recipe: Recipe,
    *,
    classes: Sequence[str],
    seed: int,
    evaluate: Evaluate | None = None,
    keep_best: bool = True,
    checkpoint: Path | None = None,
) -> Fitted:
    """Trains one network.

    Everything random is keyed by the seed and the number of the step or draw, so that a training which was
    killed and goes on from its checkpoint ends with the same numbers, and so do several processes (apart from
    rounding, BatchNorm in training, dropout, and partners of CutMix and MixUp: those are each process's own).

    Args:
        images: what the draws show.
        targets: what they are.
        draws: which image every draw shows.
        recipe: how.
        classes: names, in label order.
        seed: of network, transforms, dropout and mixing.
        evaluate: called with the network every `draws.eval_every` steps and after the last one.
        keep_best: whether the best evaluation's network is kept.
        checkpoint: file that holds the progress while it is not finished; None keeps none.

    Raises:
        DataError: if the loss is not finite.
        Interrupted: if a stop signal came in; the checkpoint is written.
        OutputError: if the checkpoint cannot be read or written.
    """
    training = _Training(images, targets, draws, recipe, classes=classes, seed=seed)
    if checkpoint is not None and checkpoint.is_file():
        training.load(checkpoint)
    steps, saved = len(draws.batches), time.monotonic()
    with StopSignal() as stop:
        for x in images.training(draws.rows, training.mine[training.done :], seed):
            training.step(x)
            if evaluate is not None and (training.done % draws.eval_every == 0 or training.done == steps):
                training.evaluate(evaluate, keep_best)
            due = stop.requested or time.monotonic() - saved >= CHECKPOINT_SECONDS
            if checkpoint is not None and due:
                training.save(checkpoint)
                saved = time.monotonic()
                stop.check(f"step {training.done} of {steps} of the training at hand is saved")
    return training.finish()


class _Training:
    """The state of a training, and what is done with it."""

    def __init__(
        self, images: Images, targets: Targets, draws: Draws, recipe: Recipe, *, classes: Sequence[str], seed: int
    ) -> None:
        self.accelerator = new_accelerator(recipe.precision)
        self.targets, self.draws, self.recipe, self.seed = targets, draws, recipe, seed
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.mine = [batch[self.rank :: self.world] for batch in draws.batches]
        network = images.network(classes, recipe, seed)
        optimizer = make_optimizer(network, recipe)
        self.rate = LearningRate(optimizer, recipe, steps=len(draws.batches), epoch=draws.epoch)
        if self.world > 1 and self.accelerator.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.model, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.network: nn.Module = self.accelerator.unwrap_model(self.model)
        self.real_weight = recipe.real_weight if draws.both else None  # one part alone is not weighted down
        self.done = 0
        self.losses = torch.zeros(len(draws.batches))
        self.history: list[tuple[int, Accuracy]] = []
        self.best: tuple[dict[str, Tensor], int] | None = None

    def step(self, x: Tensor) -> None:
        """One step on this process's part of the batch."""
        recipe, rows = self.recipe, self.draws.rows[self.mine[self.done]]
        device = self.accelerator.device
        start_training(self.network, recipe)
        self.rate.set(self.done)
        with seeded(self.seed, self.done, self.rank, 1):
            target = self.targets.of(rows)
            if recipe.mix_p:
                is_real = torch.from_numpy(rows < self.draws.n_real)
                x, target = mix_parts(x, target, is_real, n_classes=self.targets.n_classes, recipe=recipe)
            logits = self.model(x.to(device, non_blocking=True)).float()
            loss = weighted_loss(
                logits, target.to(device), self._weights(device), smoothing=recipe.label_smoothing
            )
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if recipe.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip_grad)
        self.optimizer.step()
        self.losses[self.done] = loss.detach()
        self.done += 1

    def _weights(self, device: torch.device) -> Tensor | None:
        """Weights of this process's images, from the counts of the whole batch; None for the plain mean."""
        batch = self.draws.rows[self.draws.batches[self.done]]
        weight = self.real_weight
        if weight is None and self.world == 1:
            return None
        share = image_weights(batch < self.draws.n_real, weight)[self.rank :: self.world]
        # The processes' losses add up to the batch's, but their gradients are averaged: so each is scaled up.
        return torch.from_numpy(share * self.world).to(device, torch.float32)

    def evaluate(self, evaluate: Evaluate, keep_best: bool) -> None:
        """Measures the network as it is, and keeps it if it is better than before."""
        self._check(self.losses[self.done - 1])
        measured = evaluate(self.network)
        if keep_best and all(measured.macro > before.macro for _, before in self.history):
            self.best = learnt_state(self.network), self.done
        self.history.append((self.done, measured))

    def save(self, path: Path) -> None:
        """Writes the checkpoint, in the first process."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        content = {
            "done": self.done, "losses": self.losses, "network": learnt_state(self.network),
            "optimizer": self.optimizer.state_dict(), "scaler": scaler.state_dict() if scaler else None,
            "history": [(step, a.macro, a.micro, a.per_class) for step, a in self.history], "best": self.best,
        }  # fmt: skip
        buffer = io.BytesIO()
        torch.save(content, buffer)
        atomic_write_bytes(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        """Goes on where a checkpoint stands."""
        try:
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # zip, pickle and tensor errors of many types
            message = f"{path}: not a readable checkpoint ({error}); delete it to train from the start"
            raise OutputError(message) from error
        load_learnt(self.network, found["network"])
        self.optimizer.load_state_dict(found["optimizer"])
        if self.accelerator.scaler and found["scaler"]:
            self.accelerator.scaler.load_state_dict(found["scaler"])
        self.done, self.losses, self.best = found["done"], found["losses"], found["best"]
        self.history = [(step, Accuracy(*values)) for step, *values in found["history"]]

    def finish(self) -> Fitted:
        """The result."""
        last = self.losses[-max(1, len(self.losses) // 10) :].mean()
        if self.world > 1:
            last = self.accelerator.reduce(last.to(self.accelerator.device), "mean")
        self._check(last)
        return Fitted(network=self.network, loss=float(last), history=self.history, best=self.best)

    def _check(self, loss: Tensor) -> None:
        if not np.isfinite(float(loss)):
            raise DataError(
                f"training loss is {float(loss)}; look for NaN among the features, or lower the learning rate"
            )
