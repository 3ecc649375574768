from __future__ import annotations

import numpy as np
import torch

from desmatch.data.batches import assemble
from desmatch.model.batch import UNLABELED, TrainingBatches, TrainingRows, Vocabularies, pad
from desmatch.recipe import TrainingConfig
from desmatch.schema import Special
from tests.conftest import encode_lists

PAIRS = [([7, 8, 9], [10]), ([11], [12, 13]), ([14, 15], [16, 17, 18]), ([19], [20])]
LABELS = np.array([1, UNLABELED, 0, UNLABELED], np.int8)


def batches(**changes):
    config = TrainingConfig(
        **{"num_train_epochs": 3, "batch_size": 2, "num_evaluations": 1, **changes}
    )
    rows = TrainingRows(encode_lists(PAIRS), LABELS)
    return TrainingBatches(rows, config, Vocabularies(7, 40), seed=5, stage="pretrained")


def test_padding_is_masked_and_cells_find_every_token():
    flat = assemble(encode_lists(PAIRS), np.array([0, 1]), np.array([False, False]))
    padded = pad(flat)
    assert padded.input_ids.shape == padded.attention_mask.shape == (2, 7)
    assert padded.input_ids.flatten()[padded.cells].tolist() == flat.ids.tolist()
    assert padded.attention_mask.sum(dim=1).tolist() == flat.lengths.tolist()
    assert padded.input_ids[1, 6] == Special.PAD
    assert padded.attention_mask[1, 6] == 0


def test_an_epoch_predicts_the_label_of_every_labelled_row_once():
    items = batches(mlm_probability=0.0)
    found = [label for step in range(2) for label in items[step]["pair_labels"].tolist()]
    assert sorted(found) == [0, 1]
    assert all(len(items[step]["masked_labels"]) == 0 for step in range(2))


def test_positions_point_at_cls_of_labelled_rows_after_the_masked_tokens():
    for step in range(len(items := batches(mlm_probability=0.5))):
        batch = items[step]
        num_masked = len(batch["masked_labels"])
        at_cls = batch["positions"][num_masked:]
        assert (batch["input_ids"].flatten()[at_cls] == Special.CLS).all()
        assert len(at_cls) == len(batch["pair_labels"])
        assert (batch["masked_labels"] > Special.YES).all()


def test_a_batch_is_a_function_of_seed_stage_and_step():
    first, second = batches(), batches()
    for step in range(6):
        _ = first[step]
    for name, tensor in second[4].items():
        torch.testing.assert_close(first[4][name], tensor)


def test_noise_and_order_are_drawn_anew_in_every_epoch():
    items = batches(mlm_probability=0.5, batch_size=4, num_train_epochs=20)
    seen = {tuple(items[step]["input_ids"].flatten().tolist()) for step in range(20)}
    assert len(seen) == 20


def test_swap_probability_zero_never_swaps():
    items = batches(mlm_probability=0.0, swap_probability=0.0, batch_size=4)
    rows = {tuple(row[row != Special.PAD].tolist()) for row in items[0]["input_ids"]}
    cls, sep = int(Special.CLS), int(Special.SEP)
    assert rows == {(cls, *a, sep, *b, sep) for a, b in PAIRS}


def test_the_number_of_steps_is_a_multiple_of_the_evaluations():
    items = batches(num_train_epochs=50, num_evaluations=3)
    assert len(items) == 3 * items.steps_per_evaluation
    assert items.steps_per_evaluation % 10 == 0
    assert abs(len(items) - 100) <= 15
