"""Dropout whose masks are read from a bank: on a CPU drawing them anew costs a third of a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BANK_SIZE = 1 << 23
"""Pre-drawn mask entries; a larger tensor is dropped out exactly."""


class Dropout(nn.Dropout):
    """Inverted dropout, of a tensor alone or of a branch that is added to a residual."""

    def add(self, residual: Tensor, branch: Tensor) -> Tensor:
        """Return residual + dropout(branch), both of one shape."""
        return residual + self(branch)


class BankDropout(Dropout):
    """Inverted dropout, its mask a stretch of pre-drawn entries at a random offset.

    Each entry is 0 with probability p and 1 / (1 - p) otherwise, as in `nn.Dropout`. Only the
    offset is drawn at a call, from torch's generator, so masks of two calls are stretches of one
    sequence and not independent in full.

    Args:
        p: Share of the entries that become 0.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Dropout's name
        """Return the input, any shape, with a share p of its entries dropped in training."""
        if not self._reads_bank(input):
            return super().forward(input)
        return input * self._mask(input)

    def add(self, residual: Tensor, branch: Tensor) -> Tensor:
        """Return residual + dropout(branch) in one pass over memory."""
        if not self._reads_bank(branch):
            return super().add(residual, branch)
        return torch.addcmul(residual, branch, self._mask(branch))

    def _reads_bank(self, x: Tensor) -> bool:
        return bool(self.training and self.p > 0 and x.numel() < BANK_SIZE)

    def _mask(self, x: Tensor) -> Tensor:
        offset = int(torch.randint(BANK_SIZE - x.numel(), ()))
        return _bank(self.p, x.dtype)[offset : offset + x.numel()].view_as(x)


_banks: dict[tuple[float, torch.dtype], Tensor] = {}


def _bank(p: float, dtype: torch.dtype) -> Tensor:
    """Return the bank of this p and dtype, drawn from a generator of its own at the first call."""
    if (p, dtype) not in _banks:
        generator = torch.Generator().manual_seed(0)
        kept = torch.rand(BANK_SIZE, generator=generator) >= p
        _banks[p, dtype] = (kept / (1 - p)).to(dtype)
    return _banks[p, dtype]


def use_bank_dropout(model: nn.Module) -> None:
    """Replace every dropout of a model by one that reads its masks from a bank, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout) and not isinstance(child, BankDropout):
                replacement = BankDropout(child.p)
                replacement.train(child.training)
                setattr(module, name, replacement)
