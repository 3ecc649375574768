"""Where a token stands: rotations and relative distances, computed from position numbers.

Absolute positions are rows of an embedding and live with it. Nothing here has a weight, so a
checkpoint holds none of it. Shapes: N tokens, R rows of W cells, d width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

PERIOD = 10000.0
"""Longest wave length over 2 pi, of both kinds."""

MAX_DISTANCE = 64
"""NEZHA's distances are clipped to -64 .. 64."""


def rotation(position_ids: Tensor, head_size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of every token's angles, (R, 1, W, d / 2) each.

    Both are scaled by d^(-1/4): queries and keys are rotated by them alike, so that their product
    arrives divided by the square root of d.

    Args:
        position_ids: (R, W), int.
        head_size: d, even.
        dtype: Of the result.
    """
    half = torch.arange(0, head_size, 2, device=position_ids.device, dtype=torch.float32)
    frequencies = PERIOD ** (-half / head_size)
    angles = position_ids[:, None, :, None] * frequencies
    scale = head_size**-0.25
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


class TurnedHeads(torch.autograd.Function):
    """Query, key and value side by side to heads, queries and keys turned by their positions.

    The halves (x1, x2) of a head become (x1 cos - x2 sin, x2 cos + x1 sin), written where batched
    matrix products want them. The gradient is turned back by the same angle, so neither input nor
    output is kept.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Return three tensors (R, H, W, d).

        Args:
            ctx: Autograd's.
            qkv: (R, W, 3, H, d).
            cos: (R, 1, W, d / 2).
            sin: (R, 1, W, d / 2).
        """
        ctx.save_for_backward(cos, sin)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        new = [torch.empty_like(query, memory_format=torch.contiguous_format) for _ in range(2)]
        _turn(query, cos, sin, out=new[0])
        _turn(key, cos, sin, out=new[1])
        return (*new, value.contiguous())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]  # noqa: ANN401
        """Turn the gradients of queries and keys back."""
        cos, sin = ctx.saved_tensors
        num_rows, num_heads, width, head_size = grads[0].shape
        grad = grads[0].new_empty(num_rows, width, 3, num_heads, head_size)
        query, key, value = grad.permute(2, 0, 3, 1, 4)
        _turn(grads[0], cos, -sin, out=query)
        _turn(grads[1], cos, -sin, out=key)
        value.copy_(grads[2])
        return grad, None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, *, out: Tensor) -> None:
    first, second = x.chunk(2, dim=-1)
    left, right = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right).addcmul_(first, sin)


def distance_buckets(position_ids: Tensor) -> Tensor:
    """Return (R, 1, W, W): the clipped distance from cell i to cell j, counted from 0."""
    distance = position_ids[:, None, None, :] - position_ids[:, None, :, None]
    return distance.clamp(-MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE


def distance_table(head_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return NEZHA's fixed sinusoids of every clipped distance, (129, d)."""
    number = torch.arange(2 * MAX_DISTANCE + 1, device=device, dtype=torch.float32)[:, None]
    even = torch.arange(0, head_size, 2, device=device, dtype=torch.float32)
    angles = number * torch.exp(-even * (math.log(PERIOD) / head_size))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(dtype)
