from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from desmatch.model.layers import Linear, held_copies
from desmatch.model.scoring import inference, score_pairs
from desmatch.schema import Special
from tests.conftest import encode_lists
from tests.model.conftest import PAIRS, build, draw_pairs, packed_pairs

every_head = pytest.mark.parametrize(
    "model",
    [build(), build(position="relative"), build(head="classifier", pooling="cls-mean")],
    ids=["label-tokens", "relative", "classifier"],
)


@every_head
def test_scores_do_not_see_padding_or_neighbours(model):
    together = score_pairs(model, encode_lists(PAIRS)).scores
    alone = [score_pairs(model, encode_lists([pair])).scores[0] for pair in PAIRS]
    np.testing.assert_allclose(together, alone, atol=1e-6)


@every_head
def test_scores_do_not_depend_on_the_order_of_the_texts(model):
    swapped = [(b, a) for a, b in PAIRS]
    there, back = (score_pairs(model, encode_lists(pairs)) for pairs in (PAIRS, swapped))
    np.testing.assert_allclose(there.scores, back.scores, atol=1e-6)
    np.testing.assert_allclose(there.forward, back.backward, atol=1e-5)
    assert not np.allclose(there.forward, there.backward)


@pytest.mark.parametrize("head", ["label-tokens", "classifier"])
def test_a_score_is_the_share_of_yes_beside_no(head):
    model = build(head=head)
    flat, packed = packed_pairs(PAIRS)
    pair_cells = torch.from_numpy(packed.cells[flat.starts])
    with torch.inference_mode():
        probs = model(**packed.inputs, pair_cells=pair_cells).pair_logits.softmax(dim=-1)
    first = {"label-tokens": int(Special.NO), "classifier": 0}[head]
    no, yes = probs[:, first], probs[:, first + 1]
    forward = score_pairs(model, encode_lists(PAIRS)).forward
    np.testing.assert_allclose(1 / (1 + np.exp(-forward)), (yes / (yes + no)).numpy(), atol=1e-6)


def test_more_pairs_than_a_batch_come_back_in_their_order(monkeypatch):
    model, pairs = build(), draw_pairs(11)
    whole = score_pairs(model, encode_lists(pairs))
    monkeypatch.setattr("desmatch.model.scoring.CPU_TOKENS", 30)
    in_batches = score_pairs(model, encode_lists(pairs))
    np.testing.assert_allclose(in_batches.forward, whole.forward, atol=1e-5)
    np.testing.assert_allclose(in_batches.backward, whole.backward, atol=1e-5)


def test_scores_in_bf16_are_near_those_in_fp32():
    model, pairs = build(), encode_lists(draw_pairs(200))
    exact, rounded = (score_pairs(model, pairs, in_bf16=in_bf16) for in_bf16 in (False, True))
    np.testing.assert_allclose(rounded.scores, exact.scores, atol=0.03)
    assert len(np.unique(exact.forward)) == 200
    assert len(np.unique(rounded.forward)) == 200  # the head rounds no two pairs to one score


@pytest.mark.parametrize("is_training", [True, False])
def test_scoring_leaves_the_training_mode_as_it_was(tiny_model, is_training):
    tiny_model.train(is_training)
    score_pairs(tiny_model, encode_lists(PAIRS))
    assert tiny_model.training == is_training


@pytest.mark.parametrize("in_bf16", [False, True])
def test_scores_are_those_of_the_weights_of_the_moment(in_bf16):
    model, pairs = build(), encode_lists(PAIRS)
    before = score_pairs(model, pairs, in_bf16=in_bf16)
    with torch.no_grad():
        for parameter in model.encoder.layers.parameters():
            parameter.mul_(1.5)
    after, fresh = (score_pairs(each, pairs, in_bf16=in_bf16) for each in (model, deepcopy(model)))
    np.testing.assert_array_equal(after.forward, fresh.forward)
    assert not np.allclose(after.forward, before.forward, atol=1e-3)


def test_no_copy_of_a_weight_outlives_the_passes_that_share_it(tiny_model):
    linear = tiny_model.encoder.layers[0].feed_forward.expand
    with inference(tiny_model, in_bf16=True):
        assert tiny_model(torch.full((1, 5), int(Special.UNK))).logits.dtype == torch.bfloat16
        assert linear.copies.keys() == {torch.bfloat16}
    assert linear.copies is None
    with pytest.raises(IndexError), inference(tiny_model, in_bf16=True):
        tiny_model(torch.full((1, 5), tiny_model.config.vocab_size))
    assert linear.copies is None


@pytest.mark.parametrize("num_rows", [1, 7, 300])
def test_a_packed_product_is_the_product(num_rows):
    linear, x = Linear(24, 40), torch.randn(num_rows, 24).bfloat16()
    with torch.inference_mode():
        expected = linear(x)
        with held_copies(linear):
            torch.testing.assert_close(linear(x), expected, atol=0.02, rtol=0.01)


def test_a_classifier_of_cls_alone_needs_no_other_cell_of_the_last_layer():
    model = build(head="classifier", pooling="cls")
    flat, packed = packed_pairs(PAIRS)
    pair_cells = torch.from_numpy(packed.cells[flat.starts])
    hidden = model.encoder(**packed.inputs).last_hidden_state.flatten(0, 1)
    expected = model.pair_head(hidden, packed.attention_mask, pair_cells)
    masked = torch.from_numpy(packed.cells[flat.starts + 1])
    output = model(**packed.inputs, pair_cells=pair_cells, masked_cells=masked)
    torch.testing.assert_close(output.pair_logits, expected)
    logits = model.mlm_head(hidden[masked], model.get_input_embeddings().weight)
    torch.testing.assert_close(output.logits, logits)
