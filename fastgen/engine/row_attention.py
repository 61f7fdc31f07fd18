"""Cross-attention to text and to image tokens in one kernel: queries are read once, lambda is a number per row.

For torch.compile on an NVIDIA GPU, in half precision. A few dozen tokens fit a block, so both softmaxes are exact in
one pass; PyTorch would run its attention for long sequences twice, and then add.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgen.engine.adapters import RowIPAttnProcessor

BLOCK = 64
"""Queries of a block. More of them, or more warps than four, was slower; 64 with eight was wrong in Triton 3.6."""

MAX_HEAD = 128
"""Width of a head up to which a block fits: two calls of PyTorch's attention are faster for wider ones."""

LOG2_E = tl.constexpr(1.4426950408889634)


class OneKernelProcessor(RowIPAttnProcessor):
    """`RowIPAttnProcessor` whose two attentions are one kernel."""

    def attend(self, attn: Any, query: Tensor, text: Tensor, tokens: Tensor, ip_scale: Tensor) -> Tensor:
        """Z of adapters.py; (B, L, C) in and out."""
        assert self.image is not None
        if query.shape[-1] // attn.heads > MAX_HEAD:
            return super().attend(attn, query, text, tokens, ip_scale)
        parts = (attn.to_k(text), attn.to_v(text), self.image.to_k_ip(tokens), self.image.to_v_ip(tokens))
        return attend_to_both(query, *parts, ip_scale, heads=attn.heads)


def attend_to_both(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    image_key: Tensor,
    image_value: Tensor,
    ip_scale: Tensor,
    *,
    heads: int,
) -> Tensor:
    """Attn(query, key, value) + ip_scale * Attn(query, image_key, image_value), multi-head.

    Args:
        query: (B, L, C), float16 or bfloat16 like all but `ip_scale`.
        key: of the text, (B, T, C); all T tokens are in one block, so they cannot be many.
        value: as `key`.
        image_key: (B, I, C), few tokens too.
        image_value: as `image_key`.
        ip_scale: lambda of every row, (B,) float32.
        heads: divides C.

    Returns:
        (B, L, C), type of `query`; sums and softmaxes are float32.
    """
    rows, length, width = query.shape
    head = width // heads
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    _attend_to_both[(heads, triton.cdiv(length, BLOCK), rows)](
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        image_key.contiguous(),
        image_value.contiguous(),
        ip_scale,
        out,
        length,
        key.shape[1],
        image_key.shape[1],
        WIDTH=width,
        HEAD=head,
        BLOCK=BLOCK,
        BLOCK_HEAD=max(16, triton.next_power_of_2(head)),
        BLOCK_TEXT=max(16, triton.next_power_of_2(key.shape[1])),
        BLOCK_IMAGE=max(16, triton.next_power_of_2(image_key.shape[1])),
    )
    return out


@triton.jit
def _attend_to_both(
    query,
    key,
    value,
    image_key,
    image_value,
    ip_scale,
    out,
    length,
    text_length,
    image_length,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK_TEXT: tl.constexpr,
    BLOCK_IMAGE: tl.constexpr,
):
    """One block of queries of one head of one row; heads run side by side, so that they share what they read."""
    row = tl.program_id(2)
    start = tl.program_id(0) * HEAD
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.arange(0, BLOCK_HEAD)
    there = (places[:, None] < length) & (columns[None, :] < HEAD)
    at = (row.to(tl.int64) * length + places[:, None]) * WIDTH + start + columns[None, :]
    q = tl.load(query + at, mask=there, other=0.0)
    found = _attend(q, image_key, image_value, row, start, image_length, WIDTH, HEAD, BLOCK_HEAD, BLOCK_IMAGE)
    found *= tl.load(ip_scale + row)
    found += _attend(q, key, value, row, start, text_length, WIDTH, HEAD, BLOCK_HEAD, BLOCK_TEXT)
    tl.store(out + at, found.to(q.dtype), mask=there)


@triton.jit
def _attend(
    q,
    key,
    value,
    row,
    start,
    tokens,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """Attention of a block of queries to all tokens of one kind; float32."""
    token = tl.arange(0, BLOCK_TOKENS)
    columns = tl.arange(0, BLOCK_HEAD)
    there = (token[:, None] < tokens) & (columns[None, :] < HEAD)
    at = (row * tokens + token[:, None]) * WIDTH + start + columns[None, :]
    k = tl.load(key + at, mask=there, other=0.0)
    v = tl.load(value + at, mask=there, other=0.0)
    # no number that is not a whole one is an argument: inductor hands those over as float64, and all sums become that
    logits = tl.dot(q, tl.trans(k)) * (LOG2_E * HEAD**-0.5)
    logits = tl.where(token[None, :] < tokens, logits, float("-inf"))
    weights = tl.exp2(logits - tl.max(logits, 1)[:, None])
    return tl.dot(weights.to(v.dtype), v) / tl.sum(weights, 1)[:, None]
