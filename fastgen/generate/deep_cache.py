"""DeepCache (arXiv 2312.00858): the deep part of the UNet runs every few steps, its feature serves those between."""

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from fastgen.engine.load import Engine


class CachedUNet:
    """Predicts the noise of one batch, step after step; make a new one for every batch."""

    def __init__(self, engine: "Engine", *, every: int) -> None:
        """Start without a feature.

        Args:
            engine: built with `--deep-cache`.
            every: steps from one run of the deep part to the next; at 1 the predictions are `engine.unet`'s.
        """
        self._engine, self._every = engine, every
        self._feature: Tensor | None = None
        self._age = 0

    def __call__(self, **tensors: Tensor) -> Tensor:
        """Predict as `Engine.unet`; where guidance begins or ends, the rows are others and the deep part runs too."""
        tensors["timestep"] = tensors["timestep"].float()
        is_new = self._feature is None or len(self._feature) != len(tensors["sample"])
        if is_new or self._age == self._every:
            self._feature, self._age = self._engine.unet_deep(tensors), 0
        self._age += 1
        assert self._feature is not None
        return self._engine.unet_shallow(self._feature, tensors)
