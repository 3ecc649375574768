"""Where the norm stands beside a residual branch: x_next = leave(x, branch(enter(x))).

Shapes: N tokens, D hidden. Sources: kexue.fm/archives/8747, 8994, 9009; arXiv 2203.00555.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from desmatch.model.dropout import Dropout
from desmatch.model.layers import LayerNorm

if TYPE_CHECKING:
    from torch import Tensor

    from desmatch.model.configuration import MatchConfig


class PostNorm(LayerNorm):
    """norm(x + branch(x)), as in BERT."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def enter(self, x: Tensor) -> Tensor:
        """What the branch sees, (N, D)."""
        return x

    def leave(self, x: Tensor, branch: Tensor) -> Tensor:
        """What the next branch starts from, (N, D)."""
        return self(self.dropout.add(x, branch))


class PreNorm(PostNorm):
    """x + branch(norm(x)); a last norm follows the last layer."""

    def enter(self, x: Tensor) -> Tensor:
        """What the branch sees, (N, D)."""
        return self(x)

    def leave(self, x: Tensor, branch: Tensor) -> Tensor:
        """What the next branch starts from, (N, D)."""
        return self.dropout.add(x, branch)


class DeepNorm(PostNorm):
    """norm(alpha x + branch(x))."""

    def __init__(self, config: MatchConfig) -> None:
        super().__init__(config)
        self.alpha = config.alpha

    def leave(self, x: Tensor, branch: Tensor) -> Tensor:
        """What the next branch starts from, (N, D)."""
        return self(self.dropout.add(self.alpha * x, branch))


NORMS: dict[str, type[PostNorm]] = {"post": PostNorm, "pre": PreNorm, "deepnorm": DeepNorm}
"""`norm` of a config to its class."""
