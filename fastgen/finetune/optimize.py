"""The training loop: AdamW, a schedule, gradient clipping, several processes, checkpoints, and an exact resume.

A step's batch is a function of its number. Each process takes its part of the batch, in `accumulate` pieces; the
gradients of all pieces and processes are added up. So a step is the same however it is divided, but for rounding.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastgen.errors import FastgenError
from fastgen.finetune.objective import Objective
from fastgen.finetune.progress import Progress
from fastgen.finetune.state import Folder
from fastgen.job import StopSignal

PRECISIONS = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}
SCHEDULES = ("constant", "cosine")
LOG_EVERY = 10
"""Steps between two looks at the loss, which wait for the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """How the parameters are moved.

    Attributes:
        steps: of the whole fine-tuning.
        lr: peak rate of AdamW.
        schedule: one of `SCHEDULES`, after `warmup` steps of linear growth from 0.
        warmup: steps.
        weight_decay: AdamW's; betas are 0.9 and 0.999, eps 1e-8.
        clip: largest norm of the gradient; None for no limit.
    """

    steps: int
    lr: float
    schedule: str = "constant"
    warmup: int = 0
    weight_decay: float = 1e-2
    clip: float | None = 1.0

    def rate(self, step: int) -> float:
        """Learning rate of a step, as `diffusers.optimization.get_scheduler` has it."""
        if step < self.warmup:
            return self.lr * step / self.warmup
        if self.schedule == "constant":
            return self.lr
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))

    def check(self) -> None:
        """Raise FastgenError for numbers that cannot work."""
        if self.steps < 1 or not 0 < self.lr < math.inf or self.warmup < 0:
            numbers = f"{self.steps} steps, lr {self.lr}, warm-up {self.warmup}"
            raise FastgenError(f"got {numbers}; steps and lr must be above 0, the warm-up 0 or more")
        if self.warmup >= self.steps:
            raise FastgenError(
                f"a warm-up of {self.warmup} steps leaves nothing of {self.steps} steps; give --warmup 0, or more steps"
            )
        if self.schedule not in SCHEDULES:
            raise FastgenError(f"schedule is {self.schedule!r}; it must be one of {', '.join(SCHEDULES)}")


def new_accelerator(precision: str) -> Any:
    """Make accelerate's Accelerator: device and processes as `accelerate launch` says, else the GPU if there is one.

    Raises:
        FastgenError: an unknown precision, or one that the device does not have.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if precision not in PRECISIONS:
        raise FastgenError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    AcceleratorState._reset_state()  # accelerate keeps the first precision of a process for ever
    try:
        return Accelerator(mixed_precision=PRECISIONS[precision])
    except ValueError as error:
        raise FastgenError(f"precision {precision}: {error}; use --precision fp32") from error


def optimize(
    objective: Objective,
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    folder: Folder,
    *,
    accelerator: Any,
    accumulate: int = 1,
    save_every: int = 100,
    after: Callable[[int], None] = lambda step: None,
    progress: Progress,
) -> None:
    """Train to the last step, from the folder's checkpoint if it has one.

    Args:
        objective: gives the loss of a step.
        parameters: what is trained, by name; in place.
        optimizer: how.
        folder: gets the checkpoint and the log.
        accelerator: from `new_accelerator`.
        accumulate: pieces in which a process computes its part of a step.
        save_every: steps between two checkpoints.
        after: called by the first process with the number of steps done, after each of them.
        progress: is told of every step.

    Raises:
        Interrupted: a stop signal came in, after saving.
        FastgenError: the loss is not finite.
    """
    values = list(parameters.values())
    adamw = torch.optim.AdamW(values, lr=optimizer.lr, weight_decay=optimizer.weight_decay)
    first = _resume(folder, parameters, adamw, accelerator)
    optim = accelerator.prepare(adamw)
    log = _Log(folder, optimizer, objective.batches.steps_per_epoch, progress, main=accelerator.is_main_process)
    log.start(first)
    with StopSignal() as stop:
        for step in range(first, optimizer.steps):
            for group in optim.param_groups:
                group["lr"] = optimizer.rate(step)
            loss = _gradients(objective, values, step, accelerator=accelerator, accumulate=accumulate)
            if optimizer.clip is not None:
                accelerator.clip_grad_norm_(values, optimizer.clip)
            optim.step()
            optim.zero_grad()
            done = step + 1
            log.note(done, loss)
            stopping = anyone(stop.requested, accelerator)
            if accelerator.is_main_process:
                if done % save_every == 0 or done == optimizer.steps or stopping:
                    log.flush()
                    folder.save(done, parameters, **_states(adamw, accelerator))
                after(done)
            if stopping and done < optimizer.steps:
                stop.check(f"{done} of {optimizer.steps} steps are saved in {folder.path}")
    accelerator.wait_for_everyone()
    accelerator.free_memory()  # forget this optimiser: the next class has its own


def _gradients(
    objective: Objective, values: list[nn.Parameter], step: int, *, accelerator: Any, accumulate: int
) -> Tensor:
    """Add up the gradients of a step over pieces and processes; returns its loss, a scalar on the device."""
    loss = torch.zeros((), device=accelerator.device)
    for rows in pieces(objective.rows(step), accelerator.process_index, accelerator.num_processes, accumulate):
        with accelerator.autocast():
            part = objective.loss(step, rows)
        accelerator.backward(part)
        loss += part.detach()
    if accelerator.num_processes > 1:
        for value in values:  # a process may have had no row of a short batch
            value.grad = torch.zeros_like(value) if value.grad is None else value.grad
        summed = accelerator.reduce([*(value.grad for value in values), loss], "sum")
        for value, grad in zip(values, summed, strict=False):
            value.grad = grad
        loss = summed[-1]
    return loss


def pieces(rows: int, rank: int, world: int, accumulate: int) -> list[slice]:
    """Divide a batch: the slices of one process, none of them empty.

    Args:
        rows: of the whole batch.
        rank, world: this process and how many there are.
        accumulate: at most so many pieces per process.
    """
    parts = world * accumulate
    edges = [rows * i // parts for i in range(parts + 1)][rank * accumulate : (rank + 1) * accumulate + 1]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False) if b > a]


def _resume(folder: Folder, parameters: Mapping[str, nn.Parameter], adamw: Any, accelerator: Any) -> int:
    state = folder.load(parameters)
    accelerator.wait_for_everyone()
    if state is None:
        return 0
    adamw.load_state_dict(state["optimizer"])
    if accelerator.scaler is not None and "scaler" in state:
        accelerator.scaler.load_state_dict(state["scaler"])
    return int(state["step"])


def _states(adamw: Any, accelerator: Any) -> dict[str, Any]:
    states = {"optimizer": adamw.state_dict()}
    return states if accelerator.scaler is None else {**states, "scaler": accelerator.scaler.state_dict()}


def anyone(flag: bool, accelerator: Any) -> bool:
    """Whether the flag is up in any process."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum").item())


class _Log:
    """Collects losses on the device and writes them every few steps."""

    def __init__(
        self, folder: Folder, optimizer: Optimizer, steps_per_epoch: int, progress: Progress, *, main: bool
    ) -> None:
        self.folder, self.optimizer, self.steps_per_epoch = folder, optimizer, steps_per_epoch
        self.progress, self.main = progress, main
        self.waiting: list[tuple[int, Tensor]] = []

    def start(self, step: int) -> None:
        if self.main:
            self.folder.cut_log(step)
        self.progress.start(step)

    def note(self, done: int, loss: Tensor) -> None:
        self.waiting.append((done, loss))
        if done % LOG_EVERY == 0 or done == self.optimizer.steps:
            self.flush()

    def flush(self) -> None:
        """Read the losses from the device; every process does, so that a bad one ends them all."""
        lines = []
        for done, loss in self.waiting:
            value = loss.item()
            if not math.isfinite(value):
                raise FastgenError(
                    f"{self.folder.path}: the loss is {value} at step {done}; use a lower --lr (the last checkpoint is "
                    "from before), or --precision fp32"
                )
            epoch = (done - 1) // self.steps_per_epoch
            lines.append({"step": done, "epoch": epoch, "loss": value, "lr": self.optimizer.rate(done - 1)})
        if self.main and lines:
            self.folder.append_log(lines)
        if lines:
            self.progress.note(lines[-1]["step"], sum(line["loss"] for line in lines) / len(lines))
        self.waiting = []
