"""Matrix product and norm in the dtype of what flows through them.

The parameters stay in fp32; where the activations are bf16 a copy of them in bf16 is made once a
step, and their gradients arrive in fp32. That is the mixed precision of fp32 masters, with the
masters where every optimiser, checkpoint and gradient clipping already looks for them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """x W^T + b, W and b cast to the dtype of x.

    Args:
        in_features: Of x.
        out_features: Of the result.
        gains: Equal blocks of the output's rows start scaled by these factors.
    """

    def __init__(
        self, in_features: int, out_features: int, *, gains: tuple[float, ...] = (1.0,)
    ) -> None:
        super().__init__(in_features, out_features)
        self.gains = gains

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's name
        """(..., in_features) to (..., out_features)."""
        return F.linear(input, self.weight.to(input.dtype), self.bias.to(input.dtype))


class LayerNorm(nn.LayerNorm):
    """Layer norm, its scale and bias cast to the dtype of x."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.LayerNorm's name
        """(..., D) to (..., D)."""
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def activation_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype that activations have: autocast's where it is on, else fp32."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return torch.float32
