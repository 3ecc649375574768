"""Matrix product and norm in the dtype of what flows through them.

The parameters stay in fp32; where the activations are bf16 a copy of them in bf16 is made once a
step, and their gradients arrive in fp32; inside `held_copies`, where nothing trains, once for all
passes. That is the mixed precision of fp32 masters, with the
masters where every optimiser, checkpoint and gradient clipping already looks for them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator


Copies = dict[torch.dtype, tuple[Tensor, Tensor]]
"""Weight and bias of a module in other dtypes."""


class Linear(nn.Linear):
    """x W^T + b, W and b cast to the dtype of x.

    Args:
        in_features: Of x.
        out_features: Of the result.
        gains: Equal blocks of the output's rows start scaled by these factors.
    """

    copies: Copies | None = None

    def __init__(
        self, in_features: int, out_features: int, *, gains: tuple[float, ...] = (1.0,)
    ) -> None:
        super().__init__(in_features, out_features)
        self.gains = gains

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's name
        """(..., in_features) to (..., out_features)."""
        weight, bias = parameters(self, input.dtype)
        if weight.is_mkldnn:
            return packed_product(input, weight, bias)
        return F.linear(input, weight, bias)


class LayerNorm(nn.LayerNorm):
    """Layer norm, its scale and bias cast to the dtype of x."""

    copies: Copies | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.LayerNorm's name
        """(..., D) to (..., D)."""
        weight, bias = parameters(self, input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def parameters(module: Linear | LayerNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return weight and bias in a dtype, from the module's copies where it holds some."""
    if module.copies is None:
        return module.weight.to(dtype), module.bias.to(dtype)
    if dtype not in module.copies:
        weight, bias = module.weight.to(dtype), module.bias.to(dtype)
        if isinstance(module, Linear) and packs(weight):
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS)
        module.copies[dtype] = weight, bias
    return module.copies[dtype]


PACKED_ROWS = 2048
"""Rows of x that oneDNN lays packed weights out for; others are as right, and hardly slower."""


def packs(weight: Tensor) -> bool:
    """Whether oneDNN has a layout of its own for a weight: in bf16 on a processor with the units.

    PyTorch's own compiler calls these two operators where it freezes a model's weights; nothing
    public reaches them without copies of x and of the result.
    """
    is_bf16_on_cpu = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    is_known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return is_bf16_on_cpu and is_known and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def packed_product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W^T + b, (..., out_features), of a packed W: b is added on the way, not after."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


@contextmanager
def held_copies(model: nn.Module) -> Iterator[None]:
    """Copy the parameters to another dtype once for all passes inside, which must not train."""
    modules = [each for each in model.modules() if isinstance(each, Linear | LayerNorm)]
    for module in modules:
        module.copies = {}
    try:
        yield
    finally:
        for module in modules:
            module.copies = None


def activation_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype that activations have: autocast's where it is on, else fp32."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return torch.float32
