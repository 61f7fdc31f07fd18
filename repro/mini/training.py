"""What every training script of the mini model shares: schedule, batches that depend on the step alone, checkpoints."""

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def arguments(doc: str | None, **defaults: Any) -> argparse.Namespace:
    """Parses --work, --steps, --minutes, --batch, --lr, --threads and whatever else has a default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/mini"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--minutes", type=float, default=0.0, help="instead of --steps: as many as fit")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return args


def device() -> torch.device:
    """The GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def learning_rate(step: int, steps: int, peak: float, *, warmup: int = 100, decay_from: float = 0.0) -> float:
    """Linear warm-up, constant until `decay_from` of the steps, then a half cosine down to 2 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    start = max(warmup, int(decay_from * steps))
    if step < start:
        return peak
    progress = min(1.0, (step - start) / max(1, steps - start))
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def step_rng(stage: str, step: int) -> np.random.Generator:
    """The randomness of one step; a resumed run draws what the uninterrupted one would have drawn."""
    return np.random.default_rng([sum(stage.encode()), len(stage), step])


def resident(images: np.ndarray) -> Tensor:
    """Pictures as a tensor, uint8 (N, H, W, 3): in the GPU's memory if there is one, else where they are."""
    return torch.from_numpy(images).to(device())


def compile_on_gpu(module: nn.Module) -> None:
    """Compiles a module's forward in place where that is worth the wait."""
    if device().type == "cuda":
        module.compile()


def to_tensor(images: Tensor | np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1], channels last, on the training device."""
    return torch.as_tensor(images).to(device()).float().div_(127.5).sub_(1).permute(0, 3, 1, 2)


class Average:
    """Exponential moving average of a module's floating-point weights, with the usual warm-up of the decay."""

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the model's weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        state = model.state_dict()
        floating = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.weights[n] for n in floating], [state[n] for n in floating], 1 - decay)
        for name in state.keys() - floating:
            self.weights[name].copy_(state[name])


def train(
    stage: str,
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    args: argparse.Namespace,
    *,
    weight_decay: float = 0.01,
    decay_from: float = 0.0,
    half: bool = False,
) -> Average:
    """Runs AdamW to `args.steps`, resuming from the stage's checkpoint; returns the averaged weights.

    Args:
        stage: names the checkpoint, the log lines and the random streams.
        model: only parameters with requires_grad are trained.
        loss_at: maps a step number to its scalar loss; must draw its batch from `step_rng(stage, step)`.
        args: work, steps, minutes, lr.
        weight_decay: AdamW's, on matrices only.
        decay_from: fraction of the steps with a constant rate.
        half: computes in bfloat16 on a GPU; weights, gradients and the average stay float32.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=True)
    average, progress = Average(model), Progress(stage, args)
    path = args.work / f"{stage}.pt"
    progress.first = step = _resume(path, model, optimizer, average)
    while step < progress.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, progress.steps, args.lr, decay_from=decay_from)
        torch.manual_seed(step)
        with torch.autocast(device().type, torch.bfloat16, enabled=half and device().type == "cuda"):
            loss = loss_at(step)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model, step)
        step += 1
        progress.note(step, loss)
        if progress.should_save(step):
            save(path, args, step, model, optimizer, average)
    return average


class Progress:
    """Watches a training: prints loss and speed, stops it at NaN, and turns minutes into steps."""

    def __init__(self, stage: str, args: argparse.Namespace) -> None:
        self.stage, self.minutes, self.steps, self.first = stage, args.minutes, args.steps, 0
        self.losses: list[Tensor] = []
        self.started = self.last = self.saved = time.time()

    def note(self, step: int, loss: Tensor) -> None:
        """Takes the loss of a finished step; reads it from the device every 50 steps only."""
        self.losses.append(loss.detach())
        if step % 50 and step < self.steps:
            return
        mean = torch.stack(self.losses).mean().item()
        if not math.isfinite(mean):
            raise SystemExit(f"{self.stage}: the loss is {mean} before step {step}; lower --lr and resume")
        seconds = (time.time() - self.last) / len(self.losses)
        if self.minutes and step - self.first == 100:
            # the first 50 steps are slower: they warm the machine up and compile
            left = 60 * self.minutes - (time.time() - self.started)
            self.steps = step + max(0, int(left / seconds))
        print(f"{self.stage} {step}/{self.steps} loss {mean:.4f} {seconds:.4f} s/step", flush=True)
        self.losses, self.last = [], time.time()

    def should_save(self, step: int) -> bool:
        """Whether a checkpoint is due: a minute after the last one, and at the end."""
        if step < self.steps and time.time() - self.saved < 60:
            return False
        self.saved = time.time()
        return True


def save(
    path: Path,
    args: argparse.Namespace,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average,
) -> None:
    """Writes a checkpoint atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    state = {"step": step, "batch": args.batch, "average": average.weights}
    state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, part)
    part.rename(path)


def load_average(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a stage."""
    if not path.exists():
        raise SystemExit(f"{path} is missing: run the stage that writes it first (see repro/mini/README.md)")
    return torch.load(path, map_location=device(), weights_only=True)["average"]


def steps_done(work: Path) -> dict[str, list[int]]:
    """Stage -> steps and batch that its checkpoint has behind it, of every checkpoint in a folder."""
    stages = ("clip", "vae", "vae-decoder", "unet", "ip-adapter", "resnet")
    found = {stage: work / f"{stage}.pt" for stage in stages if (work / f"{stage}.pt").exists()}
    states = {stage: torch.load(path, mmap=True, weights_only=True) for stage, path in found.items()}
    return {stage: [int(state["step"]), int(state["batch"])] for stage, state in states.items()}


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device(), weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    average.weights = state["average"]
    return int(state["step"])
