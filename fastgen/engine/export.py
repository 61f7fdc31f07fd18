"""Torch modules -> ONNX graphs with a free batch axis; lambda and the timestep are inputs of the UNet's graph."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgen.engine.spec import Component, TensorSpec

OPSET = 18
EXAMPLE_BATCH = 2
"""Rows of the example inputs; 1 would be taken for a constant by the exporter."""


def export_onnx(module: Any, part: Component, path: Path, *, rewrite: Callable[[Any], None] | None = None) -> None:
    """Write one component as ONNX, its weights in `<path>.data`.

    Args:
        module: takes the component's inputs in order.
        part: names and shapes.
        path: ends in .onnx; its folder exists.
        rewrite: changes the graph (onnx_ir.Model) in place before it is saved.
    """
    from fastgen.engine.translations import TABLE

    inputs = tuple(_example(spec) for spec in part.inputs)
    names = [spec.name for spec in part.inputs]
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            inputs,
            input_names=names,
            output_names=[part.output.name],
            dynamic_shapes=tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),
            opset_version=OPSET,
            custom_translation_table=TABLE,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        _forget_origin(program.model)
        if rewrite is not None:
            rewrite(program.model)
        program.save(str(path), external_data=True)


def _example(spec: TensorSpec) -> Tensor:
    """Zeros of the right kind: only shapes matter to the exporter."""
    return torch.zeros(EXAMPLE_BATCH, *spec.shape, dtype=getattr(torch, spec.dtype))


def _forget_origin(model: Any) -> None:
    """Remove what the exporter notes about our source files: paths of this machine do not belong into an engine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress and deprecation messages about its own internals; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
