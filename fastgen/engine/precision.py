"""Half precision: which components can compute in it, found out from the numbers that pass through them.

Inputs and outputs of every component are float32 whatever it computes in, so engines of all precisions are called
alike. The graph itself says where it computes in what; nothing is left to a runtime's choice.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastgen.engine.spec import Component
from fastgen.errors import EngineError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Precision -> type of weights and of computation."""

FP16_LARGEST = 65504.0
HEADROOM = 8.0
"""A component computes in fp16 only if every number in it is this many times smaller than the largest of fp16."""

EXACT_DECODER = "vae_decoder_fp32"
"""Component that decodes again what the fp16 decoder could not."""


def choose_precisions(
    modules: Mapping[str, Any], parts: Mapping[str, Component], *, precision: str, examples: Mapping[str, Any]
) -> dict[str, str]:
    """Say what each component computes in.

    Args:
        modules: float32 modules, from `components.make_modules`.
        parts: component -> Component; also names what modules do not have, such as EXACT_DECODER.
        precision: what is asked for.
        examples: component -> its inputs, one or more rows.

    Returns:
        component -> precision; fp32 where fp16 would overflow.

    Raises:
        EngineError: the UNet, for which half precision is there, would overflow.
    """
    if precision != "fp16":
        return {name: "fp32" if name == EXACT_DECODER else precision for name in parts}
    chosen = {}
    for name in parts:
        largest = 0.0 if name == EXACT_DECODER else largest_activation(modules[name], examples[name])
        fits = name != EXACT_DECODER and largest * HEADROOM <= FP16_LARGEST
        if name == "unet" and not fits:
            raise EngineError(
                f"precision fp16: numbers as large as {largest:.0f} occur in this UNet, fp16 ends at "
                f"{FP16_LARGEST:.0f}; build with --precision bf16 (torch, tensorrt) or fp32"
            )
        chosen[name] = "fp16" if fits else "fp32"
    return chosen


@torch.no_grad()
def largest_activation(module: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """Return the largest absolute value that any layer of a module gives, infinity if one is not finite.

    Args:
        module: float32.
        inputs: its arguments by name; may lie anywhere.
    """
    found = 0.0

    def look(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal found
        for value in output if isinstance(output, tuple | list) else (output,):
            if isinstance(value, Tensor) and value.is_floating_point():
                largest = float(value.abs().max())
                found = max(found, largest if largest == largest else float("inf"))

    hooks = [layer.register_forward_hook(look) for layer in module.modules()]
    try:
        module(**{name: value.to(device_of(module)) for name, value in inputs.items()})
    finally:
        for hook in hooks:
            hook.remove()
    return found


def lower(module: nn.Module, precision: str) -> nn.Module:
    """Return the module in a precision: itself for fp32, else a copy."""
    return module if precision == "fp32" else copy.deepcopy(module).to(DTYPES[precision])


def dtype_of(module: nn.Module) -> torch.dtype:
    """Type of a module's weights, which is what it computes in."""
    return next(module.parameters()).dtype


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights lie; the CPU for one without any."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
