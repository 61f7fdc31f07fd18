"""Optimizers and learning rates of a recipe."""

from typing import Any

import torch
from torch import nn

from fastgen.errors import FastgenError
from fastgen.train.recipe import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over what `network` can learn.

    Raises:
        FastgenError: if layer decay is asked of a network whose layers are not known.
    """
    parameters: Any
    if recipe.layer_decay is None:
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    else:
        parameters = layer_groups(network, recipe.layer_decay, recipe.weight_decay)
    lr, decay = recipe.peak_lr, recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=lr)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=recipe.momentum, weight_decay=decay)


def layer_groups(network: Any, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with `lr_scale` = layer_decay ^ (layers above); biases and norms do not decay (MAE).

    Args:
        network: an `ImageClassifier` around a timm model without classifier; its head is the last layer.
        layer_decay: 0 to 1.
        weight_decay: of the others.

    Raises:
        FastgenError: if the encoder is no timm model with layers.
    """
    from timm.optim import param_groups_layer_decay

    encoder: Any = getattr(network, "encoder", None)
    if not hasattr(encoder, "group_matcher"):
        raise FastgenError("layer_decay needs a timm model whose layers are known, such as mae-vit-b16")
    exempt = encoder.no_weight_decay() if hasattr(encoder, "no_weight_decay") else set()
    groups = param_groups_layer_decay(
        encoder, weight_decay=weight_decay, layer_decay=layer_decay, no_weight_decay_list=exempt
    )
    head = list(network.head.parameters())
    for flat, decay in ((False, weight_decay), (True, 0.0)):
        groups.append({
            "params": [p for p in head if (p.ndim <= 1) == flat], "lr_scale": 1.0, "weight_decay": decay
        })  # fmt: skip
    for group in groups:
        group.pop("param_names", None)
    return groups


class LearningRate:
    """Sets the learning rate of every step; it depends on the number of the step alone, so a restart needs no state.

    Args:
        optimizer: whose groups may have an `lr_scale`.
        recipe: schedule, warmup, min_lr.
        steps: in all.
        epoch: steps per epoch, for `warmup`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, *, steps: int, epoch: int) -> None:
        from timm.scheduler.cosine_lr import CosineLRScheduler

        self._scheduler: Any = None
        if recipe.schedule == "cosine":
            rise = min(round(recipe.warmup * epoch), steps - 1)
            self._scheduler = CosineLRScheduler(
                optimizer, t_initial=steps - rise, lr_min=recipe.min_lr, warmup_t=rise, warmup_prefix=True,
                t_in_epochs=False,
            )  # fmt: skip
        else:
            for group in optimizer.param_groups:
                group["lr"] = recipe.peak_lr * group.get("lr_scale", 1.0)

    def set(self, step: int) -> None:
        """Sets the rate of step 0, 1, ...; the first step of a rise has rate 0, as in MAE's code."""
        if self._scheduler is not None:
            self._scheduler.step_update(step)
