"""The one door from arrays to tensors.

Shapes: R rows of W cells, N tokens, M masked tokens, B labelled pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from desmatch.data.batches import FlatBatch, assemble, plan_epoch
from desmatch.data.corrupt import corrupt
from desmatch.data.pack import ROW_LENGTH, pack
from desmatch.data.vocabulary import EncodedPairs, positions_within
from desmatch.runs import generator
from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.recipe import TrainingConfig


class PackedRows(NamedTuple):
    """A batch of pairs in rows of one length.

    Attributes:
        input_ids: (R, W), int64.
        attention_mask: (R, W), int64, k at the tokens of the batch's k-th pair, counted from 1,
            and 0 at padding.
        position_ids: (R, W), int64, of each token in its pair.
        cells: (N,), int64, where each token of the flat batch lies in the flattened (R * W,).
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    cells: NDArray[np.int64]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The three arrays by the names that models take them under."""
        names = ("input_ids", "attention_mask", "position_ids")
        return {name: getattr(self, name) for name in names}


def lay_out(flat: FlatBatch, *, row_length: int = ROW_LENGTH) -> PackedRows:
    """Pack a flat batch into rows of `row_length` cells, or longer where a pair is longer."""
    packed = pack(flat.lengths, row_length=row_length)
    within = positions_within(flat.lengths)
    cells = np.repeat(packed.starts, flat.lengths) + within
    pairs = np.repeat(np.arange(1, len(flat.lengths) + 1), flat.lengths)

    def spread(values: NDArray[np.int64], padding: int) -> Tensor:
        rows = np.full(packed.num_rows * packed.row_length, padding, np.int64)
        rows[cells] = values
        return torch.from_numpy(rows.reshape(packed.num_rows, packed.row_length))

    return PackedRows(
        spread(flat.ids, int(Special.PAD)), spread(pairs, 0), spread(within, 0), cells
    )


MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids", "masked_cells", "pair_cells")
"""What of a training batch the model takes; the rest is for the objective."""


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
        packed = lay_out(flat._replace(ids=noisy.ids))
        labels = self.rows.labels[rows]
        labelled = np.flatnonzero(labels != UNLABELED)
        return {
            **packed.inputs,
            "masked_cells": torch.from_numpy(packed.cells[noisy.positions]),
            "pair_cells": torch.from_numpy(packed.cells[flat.starts[labelled]]),
            "masked_labels": torch.from_numpy(noisy.labels),
            "pair_labels": torch.from_numpy(labels[labelled].astype(np.int64)),
        }

    def _epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        if self._plan[0] != epoch:
            rng = generator(self.seed, self.stage, "epoch", epoch)
            num_rows = self.rows.pairs.num_pairs
            batches = plan_epoch(num_rows, batch_size=self.config.batch_size, rng=rng)
            self._plan = (epoch, batches)
        return self._plan[1]
