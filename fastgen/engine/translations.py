"""How attention, group norm and GELU are written in ONNX: with shapes as constants, except for the batch axis.

The exporter's own translations compute shapes at run time, from every tensor anew: 33 times in the UNet of the
embedded model. Height and width of an engine are fixed, so all of it but the number of rows is known; the arithmetic
below is the exporter's, the shapes are not. Builders such as TensorRT's then see plain attention.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset18 as op
from onnxscript.function_libs.torch_lib.ops.nn import aten_gelu, aten_scaled_dot_product_attention

FLOAT = int(ir.DataType.FLOAT)

Value = Any
"""A tensor of the graph that is being written; its shape has the sizes that the exporter knows."""


def attention(
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """Write scaled_dot_product_attention: (B, H, L, d), (B, H, S, d), (B, H, S, d) -> (B, H, L, d).

    Query and key each take the square root of the scale, so that their product cannot overflow. What Stable Diffusion
    does not use (boolean masks, grouped heads, dropout) is left to the exporter.
    """
    plain = not (is_causal or enable_gqa or dropout_p)
    if not plain or (attn_mask is not None and attn_mask.dtype == ir.DataType.BOOL):
        return aten_scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    factor = _constant(np.array(root), query)
    transposed = op.Transpose(key, perm=[0, 1, 3, 2])
    scores = op.MatMul(op.Mul(query, factor), op.Mul(transposed, factor))
    if attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def group_norm(
    input: Value,
    num_groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Value:
    """Write group_norm of (B, C, ...) as instance norm of (B, groups, rest) and one scale and shift per channel.

    The norm itself is float32 in every precision: its sums run over whole images and would overflow fp16.
    """
    sizes = list(input.shape)[1:]
    ones, zeros = (op.Constant(value=ir.tensor(make(num_groups, np.float32))) for make in (np.ones, np.zeros))
    grouped = op.Reshape(input, op.Constant(value_ints=[0, num_groups, -1]))
    half = input.dtype != ir.DataType.FLOAT
    norm = op.InstanceNormalization(op.Cast(grouped, to=FLOAT) if half else grouped, ones, zeros, epsilon=eps)
    norm = op.Cast(norm, to=int(input.dtype)) if half else norm
    norm = op.Reshape(norm, op.Constant(value_ints=[0, *sizes]))  # 0: as many rows as before
    axes = op.Constant(value_ints=list(range(1, len(sizes))))
    if weight is not None:
        norm = op.Mul(norm, op.Unsqueeze(weight, axes))
    if bias is not None:
        norm = op.Add(norm, op.Unsqueeze(bias, axes))
    return norm


def gelu(self: Value, approximate: str = "none") -> Value:
    """Write gelu as x * (1 + erf(x / sqrt 2)) * 0.5, in the order in which ONNX Runtime knows it and fuses it."""
    if approximate != "none":
        return aten_gelu(self, approximate=approximate)
    root, one, half = (_constant(np.array(number), self) for number in (math.sqrt(2), 1.0, 0.5))
    return op.Mul(op.Mul(self, op.Add(op.Erf(op.Div(self, root)), one)), half)


def _constant(array: Any, like: Value) -> Value:
    """Return a constant with the type of `like`."""
    return op.Constant(value=ir.tensor(array.astype(like.dtype.numpy())))


TABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention,
    torch.ops.aten.group_norm.default: group_norm,
    torch.ops.aten.gelu.default: gelu,
}
"""What `torch.onnx.export` takes as custom_translation_table."""
