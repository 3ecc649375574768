"""How matrices start. Source: kexue.fm/archives/8725 and 8747; arXiv 2203.00555.

For y = x W with W of m inputs and n outputs the forward pass wants an entry's variance to be 1/m,
the backward pass 1/n; the three averages of m and n are compromises.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

from desmatch.model.layers import LayerNorm, Linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

VARIANCES: dict[str, Callable[[int, int], float]] = {
    "arithmetic": lambda m, n: 2 / (m + n),  # Xavier
    "geometric": lambda m, n: 1 / math.sqrt(m * n),
    "quadratic": lambda m, n: (m + n) / (m**2 + n**2),
    "fan-in": lambda m, n: 1 / m,  # noqa: ARG005
    "fan-out": lambda m, n: 1 / n,  # noqa: ARG005
    "deepnorm": lambda m, n: 2 / (m + n),  # the gains of the branches are beta
}
"""`initialization` to the variance of an entry; `bert` is none of them."""


def truncated_normal_(tensor: Tensor, sigma: float) -> None:
    """Fill with a normal of deviation `sigma`, drawn again beyond two of them.

    `sigma` is the deviation before truncation, as in BERT's code: the entries' own is 0.88 sigma.
    """
    nn.init.trunc_normal_(tensor, std=sigma, a=-2 * sigma, b=2 * sigma)


def fill_matrix_(weight: Tensor, *, scheme: str, sigma: float, gain: float = 1.0) -> None:
    """Fill a matrix (n outputs, m inputs) by a scheme's name."""
    if scheme == "bert":
        truncated_normal_(weight, sigma * gain)
    else:
        n, m = weight.shape
        nn.init.normal_(weight, std=gain * math.sqrt(VARIANCES[scheme](m, n)))


def initialize(module: nn.Module, *, scheme: str, sigma: float) -> None:
    """Fill the parameters of one module: matrices by scheme, embeddings with deviation sigma.

    An embedding is a look-up, its fan-in is 1, so no average applies to it. Parameters that a
    module holds itself, such as the decoder's bias, start at 0.
    """
    if isinstance(module, Linear):
        blocks = module.weight.detach().chunk(len(module.gains))
        for block, gain in zip(blocks, module.gains, strict=True):
            fill_matrix_(block, scheme=scheme, sigma=sigma, gain=gain)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        truncated_normal_(module.weight, sigma)
    elif isinstance(module, LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    else:
        for parameter in module.parameters(recurse=False):
            nn.init.zeros_(parameter)
