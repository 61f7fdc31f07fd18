"""Trains the oracle that judges generated pictures: `python -m repro.mini.oracle --work out/mini`.

A convolutional network with one head each for breed (37), pose (5), background (10) and style (8), trained on
renderings that the generator never sees (other seed). It is a measuring instrument of this recipe and is not shipped.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen.petworld.attributes import BACKGROUNDS, OXFORD_PETS, POSES, STYLES, Scene
from repro.mini.data import ORACLE_SEED, TEST_SEED, load_images, training_scene
from repro.mini.training import arguments, device, load_average, step_rng, to_tensor, train

HEADS: dict[str, tuple[str, ...]] = {
    "breed": OXFORD_PETS,
    "pose": POSES,
    "background": BACKGROUNDS,
    "style": STYLES,
}


class Oracle(nn.Module):
    """Four classifiers on one trunk; input (B, 3, 64, 64) in [-1, 1]."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 3
        for channels, stride in ((1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)):
            layers += [
                nn.Conv2d(previous, channels * width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(channels * width),
                nn.ReLU(inplace=True),
            ]
            previous = channels * width
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({name: nn.Linear(previous, len(values)) for name, values in HEADS.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits of every head, (B, classes of the head)."""
        features = self.trunk(x)
        pooled = (features.mean((2, 3)) + features.amax((2, 3))) / 2
        return {name: head(pooled) for name, head in self.heads.items()}


def labels_of(scenes: list[Scene]) -> dict[str, Tensor]:
    """The true label of every head, int64 (B,)."""
    return {
        name: torch.tensor([values.index(getattr(s, name)) for s in scenes], device=device())
        for name, values in HEADS.items()
    }


class OracleLoss:
    """Sum of the heads' cross entropies; pictures are shifted by up to 4 pixels and slightly blurred or noised."""

    def __init__(self, model: Oracle, images: np.ndarray, batch: int) -> None:
        self.model, self.images, self.batch = model, images, batch

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch."""
        rng = step_rng("oracle", step)
        indices = np.sort(rng.choice(len(self.images), self.batch, replace=False))
        x = to_tensor(self.images[indices])
        dx, dy = rng.integers(-4, 5, 2)
        x = F.pad(x, (4, 4, 4, 4), mode="replicate")[:, :, 4 + dy : 68 + dy, 4 + dx : 68 + dx]
        if rng.random() < 0.5:  # pictures that went through an autoencoder are a little soft
            x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) * 0.6 + x * 0.4
        x = x + 0.04 * rng.random() * torch.randn_like(x)
        scenes = [training_scene(ORACLE_SEED, int(i)) for i in indices]
        logits = self.model(x.contiguous(memory_format=torch.channels_last))
        return sum(
            (F.cross_entropy(logits[k], v) for k, v in labels_of(scenes).items()), torch.zeros((), device=device())
        )


@torch.no_grad()
def judge(oracle: Oracle, images: np.ndarray) -> dict[str, np.ndarray]:
    """Most probable label of every head for uint8 images (N, 64, 64, 3)."""
    parts = [oracle(to_tensor(images[i : i + 100])) for i in range(0, len(images), 100)]
    return {name: torch.cat([p[name] for p in parts]).argmax(1).cpu().numpy() for name in HEADS}


def load_oracle(work: Path) -> Oracle:
    """The trained oracle in evaluation mode."""
    oracle = Oracle().to(device())
    oracle.load_state_dict(load_average(work / "oracle.pt"))
    return oracle.eval()


def main() -> None:
    """Trains and prints the accuracy of every head on fresh renderings."""
    args: argparse.Namespace = arguments(__doc__, steps=1200, batch=64, lr=2e-3, count=14_000)
    images = load_images(args.work, ORACLE_SEED, args.count)
    oracle = Oracle().to(device(), memory_format=torch.channels_last)
    train("oracle", oracle, OracleLoss(oracle, images, args.batch), args)
    test = load_images(args.work, TEST_SEED, 1000)
    truth = labels_of([training_scene(TEST_SEED, i) for i in range(len(test))])
    judged = judge(load_oracle(args.work), test)
    print({name: float((judged[name] == truth[name].cpu().numpy()).mean()) for name in HEADS})


if __name__ == "__main__":
    main()
