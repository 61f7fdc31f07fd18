"""Pretrains the small ResNet: `python -m repro.mini.resnet --work out/mini`.

It plays the part that an ImageNet ResNet-50 plays in the papers: a backbone that knows pictures of pets in general
but none of the classes it is evaluated on. It therefore learns 64 made-up breeds (`PRETRAINING_PETS`) and never sees
the 37 or the 12 novel ones.
"""

import argparse

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen.petworld.breeds import PRETRAINING_PETS
from repro.mini.data import RESNET_SEED, load_images, training_scene
from repro.mini.training import arguments, device, step_rng, to_tensor, train

MODEL_ARGS = {
    "channels": [16, 40, 80, 160],
    "stem_width": 16,
    "stem_type": "deep",
    "num_classes": len(PRETRAINING_PETS),
}


def new_resnet() -> nn.Module:
    """timm's resnet10t with narrow stages; random weights."""
    return timm.create_model("resnet10t", **MODEL_ARGS).to(device(), memory_format=torch.channels_last)


class ResNetLoss:
    """Cross entropy of the breed, with flips, shifts and label smoothing 0.1."""

    def __init__(self, model: nn.Module, images: np.ndarray, batch: int) -> None:
        self.model, self.images, self.batch = model, images, batch
        self.labels = np.array(
            [PRETRAINING_PETS.index(training_scene(RESNET_SEED, i, PRETRAINING_PETS).breed) for i in range(len(images))]
        )

    def __call__(self, step: int) -> Tensor:
        """Scalar loss of the step's batch."""
        rng = step_rng("resnet", step)
        indices = np.sort(rng.choice(len(self.images), self.batch, replace=False))
        x = to_tensor(self.images[indices])
        if rng.random() < 0.5:
            x = x.flip(3)
        dx, dy = rng.integers(-6, 7, 2)
        x = F.pad(x, (6, 6, 6, 6), mode="replicate")[:, :, 6 + dy : 70 + dy, 6 + dx : 70 + dx]
        logits = self.model(x.contiguous(memory_format=torch.channels_last))
        target = torch.from_numpy(self.labels[indices]).to(device())
        return F.cross_entropy(logits, target, label_smoothing=0.1)


def main() -> None:
    """Trains and prints the accuracy on held-out pictures of the pretraining breeds."""
    args: argparse.Namespace = arguments(__doc__, steps=1000, batch=64, lr=2e-3, count=9_600)
    images = load_images(args.work, RESNET_SEED, args.count, breeds=PRETRAINING_PETS)
    model = new_resnet()
    loss = ResNetLoss(model, images[:-800], args.batch)
    model.load_state_dict(train("resnet", model, loss, args, weight_decay=0.05).weights)
    model.eval()
    labels = [
        PRETRAINING_PETS.index(training_scene(RESNET_SEED, i, PRETRAINING_PETS).breed)
        for i in range(len(images) - 800, len(images))
    ]
    with torch.no_grad():
        guess = model(to_tensor(images[-800:])).argmax(1).cpu().numpy()
    print("held-out accuracy of the 64 pretraining breeds:", float((guess == np.array(labels)).mean()))


if __name__ == "__main__":
    main()
