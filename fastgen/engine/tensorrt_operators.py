"""Whether TensorRT can take an ONNX graph: operators, types, one free batch axis, no arithmetic on integers.

`tensorrt_operators.json` is the support table of TensorRT's ONNX parser, with its version and source.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from onnx import TensorProto, helper

from fastgen.engine.spec import Component
from fastgen.errors import SHOWN, EngineError

TABLE_FILE = Path(__file__).with_name("tensorrt_operators.json")
FLOATS = {"FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE"}
FLOAT_OF = {"fp32": "FLOAT", "fp16": "FLOAT16", "bf16": "BFLOAT16"}
HEAVY = {"Conv", "Gemm", "MatMul"}
INTEGERS = {"INT32", "INT64"}
MOVES = {"Shape", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Concat", "Slice", "Split", "Gather", "Expand"}
"""Operators that pass numbers on and compute none."""


class Edge(NamedTuple):
    """Type and shape of one tensor of a graph; an unknown size is None."""

    dtype: str
    shape: tuple[int | None, ...] | None
    constant: bool


def check_graph(path: Path, part: Component, *, loop: bool, precision: str = "fp32") -> None:
    """Refuse an ONNX file that TensorRT's parser would refuse, or would run slowly.

    Args:
        path: the file; its external data is not read.
        part: the tensors that it must take and give.
        loop: it runs in the denoising loop, where no integer may be computed at all. Elsewhere integers may be moved
            (token ids to the embedding; the number of rows into the shape of a repeated constant, which the builder
            folds because its profile has one batch size).
        precision: what its weights are; in half precision, norms and what stands at its ends are float32.

    Raises:
        EngineError: lists what is wrong.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf and the file system have many unrelated types
        raise EngineError(f"{path} cannot be read as ONNX: {error}") from error
    problems = graph_problems(model, loop=loop, precision=precision) + _signature_problems(model, part)
    if problems:
        shown = "\n".join(f"  {line}" for line in problems[:SHOWN])
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise EngineError(
            f"TensorRT cannot take {path.name}:\n{shown}{more}\n"
            "Build it with --backend onnxruntime, and please report this with the model's name"
        )


def graph_problems(model: onnx.ModelProto, *, loop: bool, precision: str = "fp32") -> list[str]:
    """Say what in a graph TensorRT does not take, one line each; see `check_graph`."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    low, high = table()["opsets"]
    if not low <= opset <= high:
        return [f"opset {opset}: TensorRT {table()['tensorrt']} takes {low} to {high}"]
    strange = [line for node in model.graph.node for line in _unknown_operator(node)]
    if strange:  # types cannot be inferred through operators that nobody knows
        return strange
    try:
        edges = infer_edges(model)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        return [f"its types cannot be inferred: {error}"]
    problems: list[str] = []
    for node in model.graph.node:
        problems += _node_problems(node, edges, opset=opset, loop=loop)
    floats = {edge.dtype for edge in edges.values() if edge.dtype in FLOATS}
    allowed = {"FLOAT", FLOAT_OF[precision]}
    if floats - allowed:
        names = (", ".join(sorted(types)) for types in (floats, allowed))
        problems.append(f"its numbers are {next(names)}; allowed in {precision}: {next(names)}")
    return problems + _weight_problems(model, edges, FLOAT_OF[precision])


def _weight_problems(model: onnx.ModelProto, edges: Mapping[str, Edge], dtype: str) -> list[str]:
    """Convolutions and products with weights that are not computed in `dtype`: nothing may stay float32 unnoticed."""
    heavy = [node for node in model.graph.node if node.op_type in HEAVY and edges[node.input[1]].constant]
    wrong = [node for node in heavy if edges[node.input[1]].dtype != dtype]
    return [f"{node.op_type} {node.name!r} computes in {edges[node.input[1]].dtype}, not in {dtype}" for node in wrong]


def infer_edges(model: onnx.ModelProto) -> dict[str, Edge]:
    """Return type and shape of every tensor of a graph, by name; strict, so contradictions raise."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    graph = inferred.graph
    edges = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        shape = None
        if tensor.HasField("shape"):
            shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
        edges[value.name] = Edge(TensorProto.DataType.Name(tensor.elem_type), shape, constant=False)
    for weight in graph.initializer:
        edges[weight.name] = Edge(TensorProto.DataType.Name(weight.data_type), tuple(weight.dims), constant=True)
    return edges


@cache
def table() -> dict[str, Any]:
    """The support table: {"tensorrt", "opsets": [low, high], "source", "operators": {name: {"types", ...}}}.

    An operator may also have "constant" (inputs, by number, that must be constants), "outputs" (how many it may have),
    "attributes" (name -> allowed values, of lists every element) and a "note" on what is not checked here.
    """
    return json.loads(TABLE_FILE.read_text(encoding="utf-8"))


def _unknown_operator(node: onnx.NodeProto) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx") or node.op_type not in table()["operators"]:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        yield f"{name} {node.name!r}: TensorRT {table()['tensorrt']} has no such operator"
    elif any(attribute.type in (attribute.GRAPH, attribute.GRAPHS) for attribute in node.attribute):
        yield f"{node.op_type} {node.name!r}: fastgen's graphs have no branches and no loops"


def _node_problems(node: onnx.NodeProto, edges: Mapping[str, Edge], *, opset: int, loop: bool) -> Iterator[str]:
    """Types, shapes and restrictions of one node."""
    where, rules = f"{node.op_type} {node.name!r}", table()["operators"][node.op_type]
    outputs = [name for name in node.output if name]
    for name in (*node.input, *outputs):
        if name and (name not in edges or edges[name].dtype == "UNDEFINED"):
            yield f"{where}: the type of {name!r} is unknown"
            return
    for name in _main_tensors(node, opset):
        if edges[name].dtype not in rules["types"]:
            yield f"{where}: {name!r} is {edges[name].dtype}, TensorRT takes {', '.join(rules['types'])}"
    for name in outputs:
        shape = edges[name].shape
        if shape is None or None in shape[1:]:
            yield f"{where}: {name!r} has the shape {shape}; only the first axis, the batch, may be free"
        computed = edges[name].dtype in INTEGERS and not all(edges[i].constant for i in node.input if i)
        if computed and (loop or node.op_type not in MOVES):
            yield f"{where}: {name!r} is computed as {edges[name].dtype} at every call"
    for index in rules.get("constant", ()):
        if index < len(node.input) and node.input[index] and not edges[node.input[index]].constant:
            yield f"{where}: input {index}, {node.input[index]!r}, must be a constant"
    if len(outputs) > rules.get("outputs", len(outputs)):
        yield f"{where}: got {len(outputs)} outputs, TensorRT has {rules['outputs']}"
    yield from _attribute_problems(node, rules.get("attributes", {}), where)


def _attribute_problems(node: onnx.NodeProto, allowed: Mapping[str, list[Any]], where: str) -> Iterator[str]:
    for attribute in node.attribute:
        if attribute.name in allowed:
            value = helper.get_attribute_value(attribute)
            values = value if isinstance(value, list | tuple) else [value]
            if any((v.decode() if isinstance(v, bytes) else v) not in allowed[attribute.name] for v in values):
                yield f"{where}: got {attribute.name}={value}, TensorRT takes {allowed[attribute.name]}"


def _main_tensors(node: onnx.NodeProto, opset: int) -> list[str]:
    """Names of the tensors that the table's types are about: those of type T, not shapes, axes or indices."""
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    pairs = []
    for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
        pairs += [(name, formals[min(i, len(formals) - 1)].type_str) for i, name in enumerate(names)]
    kinds = [kind for _, kind in pairs]
    main = "T" if "T" in kinds else kinds[0]
    return [name for name, kind in pairs if name and kind == main]


def _signature_problems(model: onnx.ModelProto, part: Component) -> list[str]:
    """Compare inputs and outputs with what engine.json will say."""
    problems = []
    for values, specs in ((model.graph.input, part.inputs), (model.graph.output, (part.output,))):
        got = {}
        for value in values:
            tensor = value.type.tensor_type
            sizes = tuple(dim.dim_value for dim in tensor.shape.dim[1:])
            got[value.name] = (TensorProto.DataType.Name(tensor.elem_type).lower(), sizes)
        needed = {spec.name: (spec.dtype.replace("float32", "float"), spec.shape) for spec in specs}
        if got != needed:
            problems.append(f"it has the tensors {got}, needed are {needed}")
    return problems
