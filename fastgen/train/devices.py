"""Devices, mixed precision and several processes, by accelerate."""

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from fastgen.errors import FastgenError


def new_accelerator(precision: str) -> Accelerator:
    """An accelerator of its own for one training, so that no state (of a gradient scaler, say) is carried over.

    Started by `accelerate launch` or `torchrun` it joins the other processes.

    Args:
        precision: "fp32", "fp16" or "bf16".

    Raises:
        FastgenError: where the device cannot do it.
    """
    AcceleratorState._reset_state(reset_partial_state=False)  # it refuses another precision than the first one
    try:
        return Accelerator(mixed_precision="no" if precision == "fp32" else precision)
    except ValueError as error:
        raise FastgenError(f"precision {precision} is not possible on this device ({error}); use fp32") from error


def usable_precision(precision: str, *, asked: bool) -> str:
    """The precision of a recipe, or fp32 where a named recipe says fp16 and there is no GPU.

    Args:
        precision: the recipe's.
        asked: whether the user set it; then it is not changed.
    """
    import torch

    return "fp32" if precision == "fp16" and not asked and not torch.cuda.is_available() else precision

