"""The one door from arrays to tensors.

Shapes: R rows of W cells, N tokens, M masked tokens, B labelled pairs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, assert_never

import numpy as np
import torch
from torch import Tensor

from desmatch.data.batches import FlatBatch, Share, assemble
from desmatch.data.corrupt import choose_ngrams, choose_tokens, choose_words, corrupt
from desmatch.data.heat import LeftOut, choose_left_out, leave_out
from desmatch.data.pack import pack_tightly
from desmatch.data.vocabulary import EncodedPairs, PairParts, positions_within, thinned
from desmatch.data.words import Words, fit_words
from desmatch.runs import generator
from desmatch.schema import Special

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from desmatch.data.pack import Packed
    from desmatch.recipe_training import TrainingConfig


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

    def spread(self, values: NDArray[np.int64]) -> Tensor:
        """Lay values of the batch's tokens into its rows: (..., N) to (..., R, W), 0 at padding."""
        return _spread(values, self.cells, tuple(self.input_ids.shape))


def lay_out(
    flat: FlatBatch,
    *,
    packing: Callable[[NDArray[np.int64]], Packed] = pack_tightly,
    position_ids: NDArray[np.int64] | None = None,
) -> PackedRows:
    """Pack a flat batch into rows.

    Args:
        flat: B pairs of N tokens.
        packing: (B,) lengths to where each pair lies; as it is, few cells are left empty.
        position_ids: (N,), where each token stands in its pair; none: no pair lacks a token.
    """
    packed = packing(flat.lengths)
    within = positions_within(flat.lengths)
    cells = np.repeat(packed.starts, flat.lengths) + within
    pairs = np.repeat(np.arange(1, len(flat.lengths) + 1), flat.lengths)
    shape = (packed.num_rows, packed.row_length)
    return PackedRows(
        _spread(flat.ids, cells, shape, padding=int(Special.PAD)),
        _spread(pairs, cells, shape),
        _spread(within if position_ids is None else position_ids, cells, shape),
        cells,
    )


def _spread(
    values: NDArray[np.int64],
    cells: NDArray[np.int64],
    shape: tuple[int, ...],
    *,
    padding: int = 0,
) -> Tensor:
    rows = np.full((*values.shape[:-1], math.prod(shape)), padding, np.int64)
    rows[..., cells] = values
    return torch.from_numpy(rows).unflatten(-1, shape)


class TrainingRows(NamedTuple):
    """The rows of a stage.

    Attributes:
        pairs: All rows, labelled or not; in parts where some lie on the disk.
        labels: (rows,), 0, 1, a teacher's probability of 1 between them, or UNLABELED.
    """

    pairs: EncodedPairs | PairParts
    labels: NDArray[np.int8] | NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> TrainingRows:
        """Return the rows of these numbers."""
        return TrainingRows(self.pairs.take(rows), self.labels[rows])

    def joined(self, others: TrainingRows) -> TrainingRows:
        """Return these rows and then the others."""
        each = (self.pairs, others.pairs)
        parts = [pairs.parts if isinstance(pairs, PairParts) else (pairs,) for pairs in each]
        labels = np.concatenate([self.labels, others.labels])
        return TrainingRows(PairParts((*parts[0], *parts[1])), labels)


UNLABELED = -1
"""The label of a row that has none; it appears in arrays only, never as a target of a loss."""


class Vocabularies(NamedTuple):
    """What noise needs to know of a vocabulary: the first frequent id, V, and words if any."""

    first_id: int
    size: int
    words: Words | None = None


class Hidden(NamedTuple):
    """Packed pairs of a share of a batch, some tokens of which are to be predicted.

    Attributes:
        inputs: What a model takes, all but `pair_cells`.
        labels: (M,), int64, the tokens that were there.
        first_cells: (B,), int64, the cell of each pair's [CLS].
        num_predicted: Tokens to be predicted in the whole batch, M or more.
    """

    inputs: dict[str, Tensor]
    labels: NDArray[np.int64]
    first_cells: NDArray[np.int64]
    num_predicted: int


def choose(
    ids: NDArray[np.int64],
    config: TrainingConfig,
    vocabulary: Vocabularies,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """(N,), which tokens are predicted: one by one, whole n-grams or whole words."""
    probability = config.mlm_probability
    match config.mask_unit:
        case "token":
            return choose_tokens(ids, probability=probability, rng=rng)
        case "ngram":
            return choose_ngrams(ids, probability=probability, rng=rng)
        case "word":
            assert vocabulary.words is not None, "TrainingBatches finds them"
            return choose_words(ids, vocabulary.words, probability=probability, rng=rng)
        case _:
            assert_never(config.mask_unit)


def replace_tokens(
    flat: FlatBatch,
    share: Share,
    config: TrainingConfig,
    vocabulary: Vocabularies,
    rng: np.random.Generator,
) -> Hidden:
    """Hide tokens behind noise in their place, as BERT does; shares see the noise of the whole."""
    noisy = corrupt(
        flat.ids,
        choose(flat.ids, config, vocabulary, rng),
        first_id=vocabulary.first_id,
        vocab_size=vocabulary.size,
        rng=rng,
    )
    taken = flat._replace(ids=noisy.ids).take(share)
    packed = lay_out(taken)
    place = noisy.positions - share.tokens.start
    is_here = (place >= 0) & (place < len(taken.ids)) & (not share.is_filler)
    masked_cells = torch.from_numpy(packed.cells[place[is_here]])
    inputs = {**packed.inputs, "masked_cells": masked_cells}
    first_cells = packed.cells[taken.starts]
    return Hidden(inputs, noisy.labels[is_here], first_cells, num_predicted=len(noisy.labels))


def leave_tokens_out(
    flat: FlatBatch,
    share: Share,
    config: TrainingConfig,
    vocabulary: Vocabularies,
    rng: np.random.Generator,
) -> Hidden:
    """Hide tokens by packing the others alone, for `desmatch.model.heat`."""
    del vocabulary
    probability = config.mlm_probability
    is_left_out = choose_left_out(flat, fill=config.fill, probability=probability, rng=rng)
    num_predicted = int((is_left_out & (flat.ids > Special.YES)).sum())
    taken, is_out = flat.take(share), is_left_out[share.tokens] & (not share.is_filler)
    hidden = lay_out_both(taken, leave_out(taken, is_out, fill=config.fill))
    return hidden._replace(num_predicted=num_predicted)


def lay_out_both(flat: FlatBatch, left_out: LeftOut) -> Hidden:
    """Pack a batch's kept tokens for the encoder, and all its tokens for the decoder."""
    kept = lay_out(left_out.kept, position_ids=left_out.position_ids)
    full = lay_out(flat)
    inputs = {
        **kept.inputs,
        "masked_cells": torch.from_numpy(full.cells[left_out.positions]),
        "full_attention_mask": full.attention_mask,
        "full_position_ids": full.position_ids,
        "neighbor_cells": full.spread(kept.cells[left_out.neighbors]),
    }
    first_cells = kept.cells[left_out.kept.starts]
    return Hidden(inputs, left_out.labels, first_cells, num_predicted=len(left_out.labels))


WORD_ROWS = 1 << 20
"""Rows that words are found in, at most: of more, every k-th."""

OBJECTIVES: dict[str, Callable[..., Hidden]] = {"mlm": replace_tokens, "heat": leave_tokens_out}
"""`objective` of a stage to how it hides tokens."""


class TrainingBatches(torch.utils.data.Dataset[dict[str, Tensor]]):
    """The batches of a whole stage, one an item; item k is a function of seed, stage and k alone.

    So a resumed stage sees what the uninterrupted one would have seen. For W processes an item is
    a share of a batch, item W k + p that of process p of batch k: together they see what one
    process would have seen.

    Args:
        rows: The stage's rows.
        config: Batch size, noise, swap and number of epochs.
        vocabulary: Where ordinary ids begin and end.
        seed: Of the run.
        stage: The stage's name; two stages with one seed draw differently.
        num_shares: W.
    """

    def __init__(
        self,
        rows: TrainingRows,
        config: TrainingConfig,
        vocabulary: Vocabularies,
        *,
        seed: int,
        stage: str,
        num_shares: int = 1,
    ) -> None:
        if config.mask_unit == "word":
            words = fit_words(thinned(rows.pairs, WORD_ROWS), vocab_size=vocabulary.size)
            vocabulary = vocabulary._replace(words=words)
        self.rows, self.config, self.vocabulary = rows, config, vocabulary
        self.seed, self.stage, self.num_shares = seed, stage, num_shares
        self.hide = OBJECTIVES[config.objective]
        self.steps_per_epoch = -(-rows.pairs.num_pairs // config.batch_size)
        steps = config.num_train_epochs * self.steps_per_epoch / config.num_evaluations
        unit = 10 if steps >= 30 else 1  # so that log lines divide the stretch between evaluations
        self.steps_per_evaluation = max(1, round(steps / unit) * unit)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Items: of the steps of the stage, a multiple of the number of evaluations, all shares."""
        return self.steps_per_evaluation * self.config.num_evaluations * self.num_shares

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        """Build a batch, or a share of it: swapped and corrupted anew at every pass.

        `joint_weight` and `pair_weight` bring a share's mean loss, of all targets or of labels
        alone, to what the mean over all shares makes the whole batch's.
        """
        step, number = divmod(item, self.num_shares)
        epoch, index = divmod(step, self.steps_per_epoch)
        rows = self._rows_of(epoch, index)
        rng = generator(self.seed, self.stage, "batch", step)
        swapped = rng.random(len(rows)) < self.config.swap_probability
        flat = assemble(self.rows.pairs.take(rows), np.arange(len(rows)), swapped)
        share = flat.share(number, self.num_shares)
        hidden = self.hide(flat, share, self.config, self.vocabulary, rng)
        is_labelled = self.rows.labels[rows] != UNLABELED
        labelled = np.flatnonzero(is_labelled[share.pairs] & (not share.is_filler))
        labels = self.rows.labels[rows[share.pairs]][labelled]
        return {
            **hidden.inputs,
            "pair_cells": torch.from_numpy(hidden.first_cells[labelled]),
            "masked_labels": torch.from_numpy(hidden.labels),
            "pair_labels": torch.from_numpy(labels.astype(np.float32)),
            **self._weights(hidden, len(labels), int(is_labelled.sum())),
        }

    def _weights(self, hidden: Hidden, num_here: int, num_labelled: int) -> dict[str, Tensor]:
        weight = self.config.label_weight
        here = len(hidden.labels) + weight * num_here
        whole = hidden.num_predicted + weight * num_labelled
        return {
            "joint_weight": torch.tensor(self.num_shares * here / (whole or 1)),
            "pair_weight": torch.tensor(self.num_shares * num_here / (num_labelled or 1)),
        }

    def _rows_of(self, epoch: int, index: int) -> NDArray[np.int64]:
        """Return the rows of a batch: an epoch deals all rows at random, 8 bytes of memory each.

        Packed rows need no neighbours of their own length.
        """
        if self._order[0] != epoch:
            self._order = (-1, np.empty(0, np.int64))  # two of them need not fit
            rng = generator(self.seed, self.stage, "epoch", epoch)
            self._order = (epoch, rng.permutation(self.rows.pairs.num_pairs))
        start = index * self.config.batch_size
        return self._order[1][start : start + self.config.batch_size]
