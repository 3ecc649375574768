"""Attention inside each pair of a row.

Shapes: N = R * W cells of R rows, D hidden, H heads of width d, P chosen cells.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from desmatch.model.dropout import Dropout
from desmatch.model.layers import Linear
from desmatch.model.positions import (
    TurnedHeads,
    distance_buckets,
    distance_table,
    rotation,
)

if TYPE_CHECKING:
    from desmatch.model.configuration import MatchConfig


class Layout(NamedTuple):
    """What all layers of a pass share.

    Attributes:
        num_rows: R.
        width: W.
        bias: (R, 1, W, W), 0 where two cells belong to one pair, hugely negative elsewhere.
        places: What the kind of position needs: nothing, cosine and sine, or buckets and table.
    """

    num_rows: int
    width: int
    bias: Tensor
    places: tuple[Tensor, ...]


def block_bias(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (R, 1, W, W): 0 between cells of one pair, the dtype's lowest value elsewhere.

    Args:
        attention_mask: (R, W), int; cells of a row's pairs carry a number of their own, padding
            carries 0. The usual mask of ones is the case of one pair a row.
        dtype: Of the result.
    """
    apart = attention_mask[:, None, :, None] != attention_mask[:, None, None, :]
    return torch.zeros(apart.shape, dtype=dtype, device=apart.device).masked_fill_(
        apart, torch.finfo(dtype).min
    )


class Attention(nn.Module):
    """Multi-head attention that knows nothing of positions; the embedding does."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__()
        width, beta = config.hidden_size, config.beta
        self.num_heads, self.head_size = config.num_attention_heads, config.head_size
        self.qkv = Linear(width, 3 * width, gains=(1.0, 1.0, beta))
        self.output = Linear(width, width, gains=(beta,))
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def places(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return what all layers need to know of the positions, (R, W), int."""
        del position_ids, dtype
        return ()

    def forward(self, x: Tensor, layout: Layout, cells: Tensor | None = None) -> Tensor:
        """Return (N, D), or (P, D) at `cells` alone.

        Args:
            x: (N, D).
            layout: Of the rows.
            cells: (P,), int64, into N.
        """
        mix = self.attended_in_graph if torch.compiler.is_exporting() else self.attended
        mixed = mix(x, layout)
        return self.output(mixed if cells is None else mixed.index_select(0, cells))

    def attended(self, x: Tensor, layout: Layout) -> Tensor:
        """Return (N, D), every head's mixture of values side by side."""
        query, key, value = self.heads(x, layout)  # (R, H, W, d) each, the query scaled
        if x.is_cuda:
            attend = self.attend_on_gpu
        else:
            attend = self.attend if torch.is_grad_enabled() else self.attend_in_inference
        return attend(query, key, value, layout).transpose(1, 2).reshape(x.shape)

    def attended_in_graph(self, x: Tensor, layout: Layout) -> Tensor:
        """Return what `attended` does, by one operator of ONNX: graphs pay for their nodes."""
        size = x.shape[-1]
        sides = self.qkv(x).view(layout.num_rows, layout.width, 3 * size)
        query, key, value = (sides[..., at : at + size] for at in (0, size, 2 * size))
        query, key = self.placed(query, key, layout)
        mixed, *_ = torch.onnx.ops.attention(
            query, key, value, layout.bias, scale=1.0,
            q_num_heads=self.num_heads, kv_num_heads=self.num_heads,
        )  # fmt: skip
        return mixed.flatten(0, 1)  # type: ignore[no-any-return]

    def placed(self, query: Tensor, key: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return query and key, (R, W, D) each, whose product is to be: the query scaled."""
        del layout
        return query * self.head_size**-0.5, key

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        """Return (R, H, W, d), the values as the queries want them."""
        scores = self.scores(query, key, layout) + layout.bias  # (R, H, W, W)
        probs = self.dropout(F.softmax(scores, dim=-1))
        return self.mix(probs, value, layout)

    def attend_on_gpu(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        """Return what `attend` does, by few kernels: half of a GPU's step is their starts."""
        dropout_p = self.dropout.p if self.training else 0.0
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=layout.bias, dropout_p=dropout_p, scale=1.0
        )

    attend_in_inference = attend_on_gpu
    """On a processor: half of the time of `attend`, which a backward pass has the results of."""

    def heads(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, (R, H, W, d) each, the query over the root of d."""
        shape = (layout.num_rows, layout.width, 3, self.num_heads, self.head_size)
        query, key, value = self.qkv(x).view(shape).permute(2, 0, 3, 1, 4).unbind(0)
        return query * self.head_size**-0.5, key, value

    def scores(self, query: Tensor, key: Tensor, layout: Layout) -> Tensor:
        """Return (R, H, W, W), how much cell i wants of cell j."""
        del layout
        return torch.matmul(query, key.transpose(-1, -2))

    def mix(self, probs: Tensor, value: Tensor, layout: Layout) -> Tensor:
        """Return (R, H, W, d), the values weighted by probs (R, H, W, W)."""
        del layout
        return torch.matmul(probs, value)


class RotaryAttention(Attention):
    """RoFormer's: queries and keys are turned by their positions (arXiv 2104.09864)."""

    def places(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return cosine and sine, (R, 1, W, d / 2) each."""
        return rotation(position_ids, self.head_size, dtype)

    def heads(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, (R, H, W, d) each; the turn divides by the root of d."""
        shape = (layout.num_rows, layout.width, 3, self.num_heads, self.head_size)
        query, key, value = TurnedHeads.apply(self.qkv(x).view(shape), *layout.places)
        return query, key, value

    def placed(self, query: Tensor, key: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return query and key, (R, W, D) each, both turned; the turn scales them."""
        cos, sin = (each.squeeze(1) for each in layout.places)  # (R, W, d / 2) each
        turn = partial(torch.onnx.ops.rotary_embedding, num_heads=self.num_heads)
        return turn(query, cos, sin), turn(key, cos, sin)


class RelativeAttention(Attention):
    """NEZHA's: fixed sinusoids of the clipped distance on keys and values (arXiv 1909.00204)."""

    def places(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return buckets (R, 1, W, W) and their sinusoids (129, d)."""
        table = distance_table(self.head_size, position_ids.device, dtype)
        return distance_buckets(position_ids), table

    attended_in_graph = Attention.attended  # no operator knows of distances
    attend_in_inference = Attention.attend

    def scores(self, query: Tensor, key: Tensor, layout: Layout) -> Tensor:
        """Return (R, H, W, W): query . (key + sinusoid of the distance)."""
        buckets, table = layout.places
        by_distance = torch.matmul(query, table.T)  # (R, H, W, 129)
        index = buckets.expand(-1, self.num_heads, -1, -1)
        return super().scores(query, key, layout) + by_distance.gather(-1, index)

    def mix(self, probs: Tensor, value: Tensor, layout: Layout) -> Tensor:
        """Return (R, H, W, d): probs . (value + sinusoid of the distance)."""
        buckets, table = layout.places
        index = buckets.expand(-1, self.num_heads, -1, -1)
        shape = (*probs.shape[:-1], len(table))
        by_distance = torch.zeros(shape, dtype=probs.dtype, device=probs.device)
        by_distance = by_distance.scatter_add(-1, index, probs)  # (R, H, W, 129)
        return super().mix(probs, value, layout) + torch.matmul(by_distance, table)

    def attend_on_gpu(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        """Return what `attend` does, by products alone: sums by index have no fixed order there."""
        buckets, table = layout.places
        sinusoids = table[buckets[:, 0]]  # (R, W, W, d), of cell i and cell j
        by_distance = torch.matmul(query.transpose(1, 2), sinusoids.transpose(-1, -2))
        scores = super().scores(query, key, layout) + by_distance.transpose(1, 2) + layout.bias
        probs = self.dropout(F.softmax(scores, dim=-1))
        by_distance = torch.matmul(probs.transpose(1, 2), sinusoids).transpose(1, 2)
        return super().mix(probs, value, layout) + by_distance


ATTENTIONS: dict[str, type[Attention]] = {
    "absolute": Attention,
    "relative": RelativeAttention,
    "rotary": RotaryAttention,
}
"""`position` of a config to its attention."""
