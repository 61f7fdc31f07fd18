"""The gate every build has to pass: the finished engine against the torch modules it was made from."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastgen.engine.spec import Component, EngineSpec
from fastgen.errors import EngineError

if TYPE_CHECKING:
    from fastgen.engine.load import Engine

TOLERANCE = {"fp32": 1e-3}
"""Precision -> largest accepted error, as a share of the reference's largest value."""

PSNR_LIMIT = 200.0
"""dB reported for equal tensors."""


def measure(modules: Mapping[str, Any], engine: "Engine") -> dict[str, Any]:
    """Run every component of an engine and of its torch modules on the same inputs.

    Args:
        modules: float32 modules on the CPU, from `components.make_modules`.
        engine: opened from the folder that is about to be published.

    Returns:
        component -> {"1" and str(spec.batch): {"max_abs", "relative", "psnr_db"}, "row": {...}}. `row` compares the
        last row of a full batch with the same row called alone: how much a result depends on its neighbours.
    """
    return {name: _measure(name, modules[name], engine) for name in engine.spec.components}


def check(parity: Mapping[str, Any], spec: EngineSpec) -> None:
    """Refuse an engine that differs from its model.

    Raises:
        EngineError: an error is above the tolerance of the engine's precision, or is NaN.
    """
    limit = TOLERANCE[spec.precision]
    bad = [
        f"{name} at batch {batch}: error {numbers['relative']:.2e} of the largest value"
        for name, batches in parity.items()
        for batch, numbers in batches.items()
        if not numbers["relative"] <= limit
    ]
    if bad:
        raise EngineError(
            f"the built engine differs from its model: {'; '.join(bad)}; allowed is {limit:.0e}. Nothing was written. "
            "Try --backend torch, and please report this with the model's name"
        )


def compare(got: Tensor, reference: Tensor) -> dict[str, float]:
    """Return the largest absolute error, its share of the reference's largest value, and the PSNR in dB."""
    got, reference = got.detach().cpu().double(), reference.detach().cpu().double()
    error = (got - reference).abs()
    peak = float(reference.abs().max())
    rmse = float(error.square().mean().sqrt())
    psnr = PSNR_LIMIT if rmse == 0 else min(PSNR_LIMIT, 20 * math.log10(max(peak, 1e-30) / rmse))
    return {"max_abs": float(error.max()), "relative": float(error.max()) / max(peak, 1e-30), "psnr_db": psnr}


def example_inputs(part: Component, *, rows: int, vocabulary: int, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs of plausible scale, the same on every machine; row i does not depend on `rows`.

    Args:
        part: names and shapes.
        rows: B.
        vocabulary: token ids are below this.
        seed: of the first row.
    """
    made = []
    for row in range(rows):
        generator = torch.Generator().manual_seed(seed + row)
        values = {}
        for spec in part.inputs:
            if spec.name == "input_ids":
                values[spec.name] = torch.randint(vocabulary, spec.shape, generator=generator)
            elif spec.name == "timestep":
                values[spec.name] = torch.randint(1000, spec.shape, generator=generator).float()
            elif spec.name == "ip_scale":
                values[spec.name] = torch.rand(spec.shape, generator=generator)
            else:
                values[spec.name] = torch.randn(spec.shape, generator=generator)
        made.append(values)
    return {name: torch.stack([values[name] for values in made]) for name in made[0]}


def _measure(name: str, module: Any, engine: "Engine") -> dict[str, Any]:
    """Errors of one component at batch 1 and at the engine's batch."""
    part, batch = engine.spec.components[name], engine.spec.batch
    inputs = example_inputs(part, rows=batch, vocabulary=len(engine.tokenizer))
    last = {key: value[-1:] for key, value in inputs.items()}
    with torch.no_grad():
        reference, reference_last = module(**inputs), module(**last)
    got, alone = engine.run(name, inputs), engine.run(name, last)
    return {"1": compare(alone, reference_last), str(batch): compare(got, reference), "row": compare(alone, got[-1:])}
