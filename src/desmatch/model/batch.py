"""The one door from arrays to tensors.

Shapes: B pairs of a batch, L tokens of its longest pair, M masked tokens, R labelled pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from desmatch.data.batches import FlatBatch, assemble, plan_epoch
from desmatch.data.corrupt import corrupt
from desmatch.data.vocabulary import EncodedPairs, positions_within
from desmatch.runs import generator
from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.recipe import TrainingConfig


class Padded(NamedTuple):
    """A batch of pairs, padded to the longest.

    Attributes:
        input_ids: (B, L), int64.
        attention_mask: (B, L), int64, 1 at tokens and 0 at padding.
        cells: (N,), int64, where each token of the flat batch lies in the flattened (B * L,).
    """

    input_ids: Tensor
    attention_mask: Tensor
    cells: NDArray[np.int64]


def pad(flat: FlatBatch) -> Padded:
    """Lay a flat batch out as rows of equal length."""
    num_pairs, longest = len(flat.lengths), int(flat.lengths.max())
    rows = np.repeat(np.arange(num_pairs), flat.lengths)
    cells = rows * longest + positions_within(flat.lengths)
    input_ids = np.full(num_pairs * longest, int(Special.PAD), np.int64)
    input_ids[cells] = flat.ids
    mask = np.zeros(num_pairs * longest, np.int64)
    mask[cells] = 1
    shape = (num_pairs, longest)
    return Padded(
        torch.from_numpy(input_ids.reshape(shape)), torch.from_numpy(mask.reshape(shape)), cells
    )


class TrainingRows(NamedTuple):
    """The rows of a stage.

    Attributes:
        pairs: All rows, labelled or not.
        labels: (rows,), int8; 0, 1, or UNLABELED.
    """

    pairs: EncodedPairs
    labels: NDArray[np.int8]


UNLABELED = -1
"""The label of a row that has none; it appears in arrays only, never as a target of a loss."""


class Vocabularies(NamedTuple):
    """What noise needs to know of a vocabulary: the first frequent id, and V."""

    first_id: int
    size: int


class TrainingBatches(torch.utils.data.Dataset[dict[str, Tensor]]):
    """The batches of a whole stage, one an item; item k is a function of seed, stage and k alone.

    So a resumed stage sees what the uninterrupted one would have seen, and processes that share
    the items see each batch once.

    Args:
        rows: The stage's rows.
        config: Batch size, noise, swap and number of epochs.
        vocabulary: Where ordinary ids begin and end.
        seed: Of the run.
        stage: The stage's name; two stages with one seed draw differently.
    """

    def __init__(
        self,
        rows: TrainingRows,
        config: TrainingConfig,
        vocabulary: Vocabularies,
        *,
        seed: int,
        stage: str,
    ) -> None:
        self.rows, self.config, self.vocabulary = rows, config, vocabulary
        self.seed, self.stage = seed, stage
        self.steps_per_epoch = -(-rows.pairs.num_pairs // config.batch_size)
        steps = config.num_train_epochs * self.steps_per_epoch / config.num_evaluations
        unit = 10 if steps >= 30 else 1  # so that log lines divide the stretch between evaluations
        self.steps_per_evaluation = max(1, round(steps / unit) * unit)
        self._plan: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def __len__(self) -> int:
        """Steps of the stage, a multiple of the number of evaluations."""
        return self.steps_per_evaluation * self.config.num_evaluations

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """Build the batch of a step: swapped and corrupted anew at every pass."""
        epoch, index = divmod(step, self.steps_per_epoch)
        rows = self._epoch(epoch)[index]
        rng = generator(self.seed, self.stage, "batch", step)
        swapped = rng.random(len(rows)) < self.config.swap_probability
        flat = assemble(self.rows.pairs, rows, swapped)
        noisy = corrupt(
            flat.ids,
            probability=self.config.mlm_probability,
            first_id=self.vocabulary.first_id,
            vocab_size=self.vocabulary.size,
            rng=rng,
        )
        padded = pad(flat._replace(ids=noisy.ids))
        labels = self.rows.labels[rows]
        labelled = np.flatnonzero(labels != UNLABELED)
        at_cls = padded.cells[flat.starts[labelled]]
        positions = np.concatenate([padded.cells[noisy.positions], at_cls])
        return {
            "input_ids": padded.input_ids,
            "attention_mask": padded.attention_mask,
            "positions": torch.from_numpy(positions),
            "masked_labels": torch.from_numpy(noisy.labels),
            "pair_labels": torch.from_numpy(labels[labelled].astype(np.int64)),
        }

    def _epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        if self._plan[0] != epoch:
            rng = generator(self.seed, self.stage, "epoch", epoch)
            lengths = self.rows.pairs.lengths
            batches = plan_epoch(lengths, batch_size=self.config.batch_size, rng=rng)
            self._plan = (epoch, batches)
        return self._plan[1]
