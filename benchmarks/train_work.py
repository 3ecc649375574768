"""What the processes of bench_train.py tell each other, and the useful work of a training step.

Useful is what the loss depends on, once: padding, logits of tokens that are not predicted and, in
the last layer, all but keys and values of such tokens count as nothing, computed or not. With
D width, V vocabulary and n tokens in a token's pair the multiply-adds are

    of a token in a layer          12 D^2 + 2 n D    query, key, value, output and feed-forward
                                                     matrices; attention
    of a token in the last layer    2 D^2            key and value
    of a predicted token there     10 D^2 + 2 n D    the rest of that layer
    of a predicted token's head       D^2 + C D      dense, then C logits: V, or 1 of a classifier

and each counts 6 FLOPs: a product and a sum, once forward and twice backward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.recipe import DataConfig, ModelConfig, Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

HEAD_SIZE = 64


class Shape(NamedTuple):
    """Layers and width D of an encoder with heads of 64 and feed-forward blocks of 4 D."""

    layers: int
    width: int

    @property
    def heads(self) -> int:
        """Of each layer."""
        return self.width // HEAD_SIZE


class Job(NamedTuple):
    """What all variants share.

    Attributes:
        folder: With the rows in `prepared`; variants write beside it.
        shape: Of the encoder.
        max_length: Tokens of a pair, at most.
        num_rows: Rows drawn from all files, the same ones for all variants.
        steps: Timed steps of a round.
        threads: Of torch.
    """

    folder: Path
    shape: Shape
    max_length: int
    num_rows: int
    steps: int
    threads: int

    @property
    def recipe(self) -> Recipe:
        """Of data and model."""
        model = ModelConfig(
            hidden_size=self.shape.width,
            num_hidden_layers=self.shape.layers,
            num_attention_heads=self.shape.heads,
            intermediate_size=4 * self.shape.width,
        )
        return Recipe(data=DataConfig(max_length=self.max_length), model=model)


class Round(NamedTuple):
    """A variant's steps of one round: real tokens, useful FLOPs, seconds and dtype of products."""

    tokens: int
    flops: float
    seconds: float
    dtype: str


class Machine(NamedTuple):
    """Name of the device, and FLOPs a second of its best matrix product by dtype."""

    device: str
    peaks: dict[str, float]


class RealTokens(NamedTuple):
    """What a batch of B pairs holds beside padding.

    Attributes:
        lengths: (B,), tokens of each pair.
        predicted: (B,), how many of them are predicted, [CLS] for the label among them.
    """

    lengths: NDArray[np.int64]
    predicted: NDArray[np.int64]


def packed_tokens(batch: dict[str, Tensor]) -> RealTokens:
    """Return what a batch of `TrainingBatches` holds."""
    pairs = batch["attention_mask"].numpy().ravel()  # numbered from 1, padding 0
    cells = np.concatenate([batch["masked_cells"].numpy(), batch["pair_cells"].numpy()])
    lengths = np.bincount(pairs)[1:]
    return RealTokens(lengths, np.bincount(pairs[cells], minlength=len(lengths) + 1)[1:])


def useful_flops(shape: Shape, columns: int, tokens: RealTokens) -> float:
    """Return the useful FLOPs of a training step.

    Args:
        shape: Of the encoder.
        columns: C, logits of a predicted token.
        tokens: Of the batch.
    """
    layers, width = shape
    lengths, predicted = tokens
    attention = 2 * lengths * width  # (B,), of one token
    below = (layers - 1) * lengths * (12 * width**2 + attention)
    last = 2 * lengths * width**2 + predicted * (10 * width**2 + attention)
    head = predicted * (width**2 + columns * width)
    return 6.0 * float((below + last + head).sum())
