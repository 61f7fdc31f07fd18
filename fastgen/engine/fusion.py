"""Exported graphs rewritten as a CPU runtime computes them fastest: attention and GEGLU.

ONNX Runtime has operators of its own for both (domain com.microsoft), which no other backend may see. OpenVINO finds
its own, but not across the Split of GEGLU. TensorRT's graphs stay as they are exported. What a graph computes stays the
same but for rounding, and the engine's fingerprint covers the file that comes out. A pattern that is not met exactly,
such as attention with a mask, stays.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

CONTRIB = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

Value = Any
Node = Any


def fuse_for_onnxruntime(model: ir.Model) -> None:
    """Rewrite a graph in place with ONNX Runtime's operators.

    Args:
        model: from `export`, with `translations.TABLE`, before it is saved.
    """
    graph = model.graph
    graph.opset_imports[CONTRIB] = 1
    for node in _nodes(graph, "Softmax"):
        _fuse_attention(graph, node)
    fuse_for_openvino(model)
    for node in _nodes(graph, "Erf"):
        _fuse_gelu(graph, node)
    RemoveUnusedNodesPass()(model)


def fuse_for_openvino(model: ir.Model) -> None:
    """Rewrite a graph in place with standard operators only: the same argument."""
    for node in _nodes(model.graph, "Split"):
        _split_linear(model.graph, node)
    RemoveUnusedNodesPass()(model)


def _nodes(graph: ir.Graph, kind: str) -> list[Node]:
    return [node for node in graph if node.op_type == kind]


def _fuse_attention(graph: ir.Graph, softmax: Node) -> None:
    """softmax(a q (a k)^T) v between tokens (B, L, C) -> one operator that never holds the scores as a whole.

    It reads and writes tokens, so the transpositions to heads and back go as well.
    """
    scores, product = _producer(softmax.inputs[0], "MatMul"), _user(softmax, "MatMul")
    if scores is None or product is None or product.inputs[0] is not softmax.outputs[0]:
        return
    query, query_factor = _unscaled(scores.inputs[0])
    key, key_factor = _unscaled(scores.inputs[1])
    inputs = [_tokens(query, (0, 2, 1, 3)), _tokens(key, (0, 2, 3, 1)), _tokens(product.inputs[1], (0, 2, 1, 3))]
    back = _user(product, "Transpose")
    joined = _user(back, "Reshape") if back is not None and _perm(back) == (0, 2, 1, 3) else None
    if joined is None or back is None or any(tokens is None for tokens in inputs) or query.shape is None:
        return
    if joined.outputs[0].is_graph_output():
        return
    attributes = {"num_heads": int(query.shape[1]), "scale": float(query_factor * key_factor)}
    fused = ir.node("MultiHeadAttention", inputs, attributes, domain=CONTRIB)
    _replace(graph, joined, fused)


def _split_linear(graph: ir.Graph, split: Node) -> None:
    """A linear layer whose output is cut in two -> two linear layers; nothing is computed and then copied."""
    add = _producer(split.inputs[0], "Add")
    product = _producer(add.inputs[0], "MatMul") if add is not None else None
    if add is None or product is None or not _halves(split):
        return
    constants = [_array(product.inputs[1]), _array(add.inputs[1])]
    if any(constant is None for constant in constants):
        return
    for number, output in enumerate(split.outputs):
        weight, bias = (np.ascontiguousarray(np.split(constant, 2, axis=-1)[number]) for constant in constants)
        name = output.name
        linear = ir.node("MatMul", [product.inputs[0], _constant(graph, weight, f"{name}_weight")])
        _name(linear, f"{name}_linear")
        shifted = ir.node("Add", [linear.outputs[0], _constant(graph, bias, f"{name}_bias")])
        _name(shifted, f"{name}_shifted")
        graph.insert_before(split, [linear, shifted])
        output.replace_all_uses_with(shifted.outputs[0])


def _halves(split: Node) -> bool:
    """Whether a Split cuts the last axis in the middle."""
    shapes = [output.shape for output in split.outputs]
    last = split.attributes["axis"].as_int() in (-1, len(split.inputs[0].shape) - 1)
    return last and len(shapes) == 2 and shapes[0] == shapes[1]


def _fuse_gelu(graph: ir.Graph, erf: Node) -> None:
    """x * (1 + erf(x / sqrt 2)) * 0.5, the form that `translations.gelu` writes, of x = y + bias -> one operator."""
    scaled, plus = _producer(erf.inputs[0], "Div"), _user(erf, "Add")
    times = _user(plus, "Mul") if plus is not None else None
    half = _user(times, "Mul") if times is not None else None
    shifted = _producer(scaled.inputs[0], "Add") if scaled is not None else None
    if half is None or times is None or shifted is None or times.inputs[0] is not shifted.outputs[0]:
        return
    bias = _array(shifted.inputs[1])
    if bias is not None and bias.ndim == 1:
        _replace(graph, half, ir.node("BiasGelu", list(shifted.inputs), domain=CONTRIB))


def _tokens(heads: Value, perm: tuple[int, ...]) -> Value | None:
    """The (B, L, C) tensor that was cut into heads and transposed to `heads`; None if it was not."""
    transposed = _producer(heads, "Transpose")
    cut = _producer(transposed.inputs[0], "Reshape") if transposed is not None and _perm(transposed) == perm else None
    if cut is None or cut.inputs[0].shape is None or cut.outputs[0].shape is None:
        return None
    before, after = cut.inputs[0].shape, cut.outputs[0].shape
    return cut.inputs[0] if (len(before), len(after)) == (3, 4) and before[1] == after[1] else None


def _unscaled(value: Value) -> tuple[Value, float]:
    """A tensor before it was multiplied by a number, and the number."""
    product = _producer(value, "Mul")
    if product is None:
        return value, 1.0
    factor = _array(product.inputs[1])
    return (value, 1.0) if factor is None or factor.size != 1 else (product.inputs[0], factor.item())


def _producer(value: Value, kind: str) -> Node | None:
    """The node that gives a value, if it is of that kind."""
    node = value.producer()
    return node if node is not None and node.op_type == kind and node.domain == "" else None


def _user(node: Node, kind: str) -> Node | None:
    """The node that alone uses a node's output, if it is of that kind."""
    users = [user for user, _ in node.outputs[0].uses()]
    alone = len(users) == 1 and not node.outputs[0].is_graph_output()
    return users[0] if alone and users[0].op_type == kind else None


def _perm(transpose: Node) -> tuple[int, ...]:
    return tuple(transpose.attributes["perm"].as_ints())


def _array(value: Value) -> Any:
    """The content of a constant, None for what is computed."""
    return value.const_value.numpy() if value.is_initializer() and value.const_value is not None else None


def _constant(graph: ir.Graph, array: Any, name: str) -> Value:
    """Add a constant to a graph."""
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _name(node: Node, name: str) -> None:
    node.name = node.outputs[0].name = name


def _replace(graph: ir.Graph, old: Node, new: Node) -> None:
    """Put a node in the place of one whose output is not the graph's; types and shapes stay."""
    result, before = new.outputs[0], old.outputs[0]
    assert not before.is_graph_output(), before.name
    result.type, result.shape = before.type, before.shape
    _name(new, f"{before.name}_fused")
    graph.insert_before(old, new)
    before.replace_all_uses_with(result)
