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

from fastgen.petworld.attributes import Scene
from repro.mini.data import TRAIN_SEED, training_scene


def arguments(doc: str | None, **defaults: Any) -> argparse.Namespace:
    """Parses --work, --steps, --batch, --lr, --threads and whatever else has a default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/mini"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
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


def scenes_at(indices: np.ndarray) -> list[Scene]:
    """Ground truth of the training pictures with these indices."""
    return [training_scene(TRAIN_SEED, int(i)) for i in indices]


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1], channels last, on the training device."""
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device()).float().div_(127.5).sub_(1)
    return x.permute(0, 3, 1, 2)


class Average:
    """Exponential moving average of a module's floating-point weights, with the usual warm-up of the decay."""

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the model's weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value.detach(), 1 - decay)
            else:
                self.weights[name].copy_(value)


def train(
    stage: str,
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    args: argparse.Namespace,
    *,
    weight_decay: float = 0.01,
    decay_from: float = 0.0,
    every: int = 250,
) -> Average:
    """Runs AdamW to `args.steps`, resuming from the stage's checkpoint; returns the averaged weights.

    Args:
        stage: names the checkpoint, the log lines and the random streams.
        model: only parameters with requires_grad are trained.
        loss_at: maps a step number to its scalar loss; must draw its batch from `step_rng(stage, step)`.
        args: work, steps, lr.
        weight_decay: AdamW's, on matrices only.
        decay_from: fraction of the steps with a constant rate.
        every: steps between checkpoints.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=True)
    average = Average(model)
    path = args.work / f"{stage}.pt"
    first = _resume(path, model, optimizer, average)
    started, losses = time.time(), []
    for step in range(first, args.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr, decay_from=decay_from)
        torch.manual_seed(step)
        loss = loss_at(step)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model, step)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"{stage}: the loss is {losses[-1]} at step {step}; lower --lr and resume")
        if (step + 1) % 50 == 0:
            speed = (time.time() - started) / (step + 1 - first)
            print(f"{stage} {step + 1}/{args.steps} loss {np.mean(losses[-50:]):.4f} {speed:.3f} s/step", flush=True)
        if (step + 1) % every == 0 or step + 1 == args.steps:
            save(path, step + 1, model, optimizer, average)
    return average


def save(path: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> None:
    """Writes a checkpoint atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.weights}
    torch.save(state, part)
    part.rename(path)


def load_average(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a stage."""
    if not path.exists():
        raise SystemExit(f"{path} is missing: run the stage that writes it first (see repro/mini/README.md)")
    return torch.load(path, map_location=device(), weights_only=True)["average"]


def steps_done(work: Path) -> dict[str, int]:
    """Stage -> steps its checkpoint has behind it, of every checkpoint in a folder."""
    stages = ("clip", "vae", "vae-decoder", "unet", "ip-adapter", "resnet")
    paths = {stage: work / f"{stage}.pt" for stage in stages}
    return {k: int(torch.load(p, mmap=True, weights_only=True)["step"]) for k, p in paths.items() if p.exists()}


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device(), weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    average.weights = state["average"]
    return int(state["step"])
