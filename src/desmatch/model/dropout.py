"""Dropout whose masks are read from a bank: on a CPU drawing them anew costs a third of a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BANK_SIZE = 1 << 23
"""Pre-drawn mask entries; a larger tensor is dropped out exactly."""


class BankDropout(nn.Module):
    """Inverted dropout, its mask a stretch of pre-drawn entries at a random offset.

    Each entry is 0 with probability p and 1 / (1 - p) otherwise, as in `nn.Dropout`. Only the
    offset is drawn at a call, from torch's generator, so masks of two calls are stretches of one
    sequence and not independent in full.

    Args:
        p: Share of the entries that become 0.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, any shape, with a share p of its entries dropped in training."""
        if not self.training or self.p == 0:
            return x
        if x.numel() >= BANK_SIZE:
            return nn.functional.dropout(x, self.p)
        offset = int(torch.randint(BANK_SIZE - x.numel(), ()))
        mask = _bank(self.p, x.dtype)[offset : offset + x.numel()]
        return x * mask.view_as(x)


_banks: dict[tuple[float, torch.dtype], Tensor] = {}


def _bank(p: float, dtype: torch.dtype) -> Tensor:
    """Return the bank of this p and dtype, drawn from a generator of its own at the first call."""
    if (p, dtype) not in _banks:
        generator = torch.Generator().manual_seed(0)
        kept = torch.rand(BANK_SIZE, generator=generator) >= p
        _banks[p, dtype] = (kept / (1 - p)).to(dtype)
    return _banks[p, dtype]


def use_bank_dropout(model: nn.Module) -> None:
    """Replace every `nn.Dropout` of a model by one that reads its masks from a bank, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                replacement = BankDropout(child.p)
                replacement.train(child.training)
                setattr(module, name, replacement)
