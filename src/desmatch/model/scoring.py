"""Scores of pairs, each read in both orders. Shapes: B pairs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.special import expit
from tqdm import tqdm

from desmatch.data.batches import assemble, plan_by_tokens
from desmatch.data.pack import pack_for_scoring
from desmatch.model.batch import lay_out
from desmatch.model.layers import held_copies
from desmatch.model.losses import label_logits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from desmatch.data.vocabulary import EncodedPairs
    from desmatch.model.heads import MatchForPairs

CPU_TOKENS, GPU_TOKENS = 1 << 11, 1 << 13
"""Tokens scored at once: on a processor as many as leave a layer's states in a core's cache."""


class PairLogits(NamedTuple):
    """Logits of label 1 against label 0: log p(yes) - log p(no).

    Attributes:
        forward: (B,), float64, `a` before `b`.
        backward: (B,), float64, `b` before `a`.
    """

    forward: NDArray[np.float64]
    backward: NDArray[np.float64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """(B,), p(yes) / (p(yes) + p(no)), the mean of both orders."""
        mean: NDArray[np.float64] = (expit(self.forward) + expit(self.backward)) / 2
        return mean


def score_pairs(
    model: MatchForPairs,
    pairs: EncodedPairs,
    *,
    progress: str | None = None,
    in_bf16: bool = False,
) -> PairLogits:
    """Score pairs, dropout off; the model's training mode is left as it was.

    Args:
        model: With either kind of pair head.
        pairs: B pairs.
        progress: Name of the progress bar, or none.
        in_bf16: Matrix products in bfloat16: faster, and good enough to compare checkpoints.
    """
    logits = np.empty((2, pairs.num_pairs))
    batch_tokens = CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS
    plan = plan_by_tokens(pairs.lengths, batch_tokens=batch_tokens)
    bar = tqdm(plan, desc=progress, unit="batch", leave=False) if progress else plan
    with inference(model, in_bf16=in_bf16):
        for rows in bar:
            for order in (0, 1):
                logits[order, rows] = _score_batch(model, pairs, rows, swapped=bool(order))
    return PairLogits(logits[0], logits[1])


@contextmanager
def inference(model: MatchForPairs, *, in_bf16: bool = False) -> Iterator[None]:
    """Dropout and gradients off; the model's training mode is afterwards as it was."""
    was_training = model.training
    model.eval()
    precision = torch.autocast(model.device.type, torch.bfloat16, enabled=in_bf16)
    with torch.inference_mode(), held_copies(model), precision:
        yield
    model.train(was_training)


def _score_batch(
    model: MatchForPairs, pairs: EncodedPairs, rows: NDArray[np.int64], *, swapped: bool
) -> NDArray[np.float64]:
    flat = assemble(pairs, rows, np.full(len(rows), swapped))
    packed = lay_out(flat, packing=pack_for_scoring)
    inputs = {**packed.inputs, "pair_cells": torch.from_numpy(packed.cells[flat.starts])}
    output = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
    columns = label_logits(output.pair_logits, first_label_column=model.first_label_column)
    two = columns.double()  # (B, 2)
    difference: NDArray[np.float64] = (two[:, 1] - two[:, 0]).cpu().numpy()
    return difference
