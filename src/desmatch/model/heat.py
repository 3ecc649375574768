"""Tokens that the encoder never saw, predicted from their neighbours' features.

QB-Heat (arXiv 2211.13228): features obey dz/dx = A z, so that z(x + d) is about (I + d A) z(x)
with one learned A; a small decoder reads what is filled in so. For a token between two kept ones
kexue.fm/archives/9359 asks for the interpolation of both:

    z = d_r / (d_l + d_r) (I + d_l A) z_l + d_l / (d_l + d_r) (I - d_r A) z_r

Shapes: R rows of W cells with the kept tokens, K = R * W; R' rows of W' cells with all tokens,
N = R' * W'; M masked tokens, D hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from desmatch.model.encoder import Layer, closing_norm, run_layers
from desmatch.model.layers import LayerNorm

if TYPE_CHECKING:
    from desmatch.model.configuration import MatchConfig


class FullRows(NamedTuple):
    """The rows of all tokens, those among them that the encoder does not see.

    Attributes:
        attention_mask: (R', W'), int64, pairs by number.
        position_ids: (R', W'), int64, of each token in its pair.
        neighbor_cells: (2, R', W'), int64, into K: the kept tokens that stand for each, left and
            right; the token itself twice where it is kept.
    """

    attention_mask: Tensor
    position_ids: Tensor
    neighbor_cells: Tensor


class Copy(nn.Module):
    """The neighbour's feature as it is."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__()
        del config

    def forward(self, hidden: Tensor, neighbors: Tensor, offsets: Tensor) -> Tensor:
        """Return the features of all tokens, (N, D).

        Args:
            hidden: (K, D), features of the kept tokens.
            neighbors: (2, N), int64, into K.
            offsets: (2, N), int64, position of a token less that of its neighbour.
        """
        del offsets
        return hidden.index_select(0, neighbors[0])


class MaskVector(Copy):
    """One learned vector for every masked token, as in MAE (arXiv 2111.06377)."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__(config)
        self.vector = nn.Embedding(1, config.hidden_size)

    def forward(self, hidden: Tensor, neighbors: Tensor, offsets: Tensor) -> Tensor:
        """Return the features of all tokens, (N, D), arguments as `Copy` has them."""
        kept = super().forward(hidden, neighbors, offsets)
        return torch.where(offsets[0, :, None] == 0, kept, self.vector.weight.to(kept.dtype))


class Interpolation(Copy):
    """Both neighbours, each carried by I + d A, and mixed by distance; A starts at 0."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__(config)
        self.slope = nn.Parameter(torch.zeros(config.hidden_size, config.hidden_size))

    def forward(self, hidden: Tensor, neighbors: Tensor, offsets: Tensor) -> Tensor:
        """Return the features of all tokens, (N, D), arguments as `Copy` has them.

        For one neighbour twice the shares do not matter: they sum to 1.
        """
        distances = offsets.abs().float()
        shares = (distances.flip(0) / distances.sum(0)).nan_to_num(0.5)  # 0 / 0 where kept
        mean = _weighted_sum(hidden, neighbors, shares)
        change = _weighted_sum(hidden, neighbors, shares * offsets)
        return mean + F.linear(change, self.slope.to(hidden.dtype))


def _weighted_sum(hidden: Tensor, neighbors: Tensor, weights: Tensor) -> Tensor:
    """(K, D), and (2, N) twice, to (N, D)."""
    weights = weights.T.to(hidden.dtype)
    return F.embedding_bag(neighbors.T, hidden, mode="sum", per_sample_weights=weights)


FILLS: dict[str, type[Copy]] = {
    "linear": Interpolation,
    "mask": MaskVector,
    "copy": Copy,
    "extrapolate": Interpolation,
}
"""`heat_fill` of a config to its module; what a token's neighbours are decides the batch."""


class Heat(nn.Module):
    """Fill and decoder: features of kept tokens to those of masked ones."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__()
        assert config.heat_fill is not None
        self.fill = FILLS[config.heat_fill](config)
        self.place: nn.Module | None = None
        if config.position == "absolute":  # elsewhere the attention knows the positions
            self.place = nn.Sequential(
                nn.Embedding(config.max_position_embeddings, config.hidden_size),
                LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
            )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_heat_layers))
        self.final_norm = closing_norm(config)

    def forward(
        self, hidden: Tensor, position_ids: Tensor, full: FullRows, masked_cells: Tensor
    ) -> Tensor:
        """Return what the masked-language-model head reads, (M, D).

        Args:
            hidden: (K, D), the encoder's output.
            position_ids: (R, W), int64, of the kept tokens.
            full: The rows of all tokens.
            masked_cells: (M,), int64, into N.
        """
        offsets = full.position_ids - position_ids.flatten()[full.neighbor_cells]  # (2, R', W')
        x = self.fill(hidden, full.neighbor_cells.flatten(1), offsets.flatten(1))
        if self.place is not None:
            x = x + self.place(full.position_ids.flatten()).to(x.dtype)
        x = run_layers(self.layers, x, full.attention_mask, full.position_ids, masked_cells)
        return self.final_norm(x)  # type: ignore[no-any-return]
