from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from desmatch.model.dropout import use_bank_dropout
from desmatch.model.losses import joint_loss, label_loss
from desmatch.runs import seed_everything
from desmatch.schema import Special
from desmatch.train.pretrain import joint_objective
from tests.model.conftest import (
    EVERY_ENCODER,
    PAIRS,
    assert_same_tensors,
    build,
    draw_pairs,
    flat_batch,
    gradients,
    name_of,
    packed_pairs,
    pad,
)

EVERY_HEAD = [
    {"head": "label-tokens"},
    *({"head": "classifier", "pooling": pooling} for pooling in ("cls", "mean", "cls-mean")),
    {"head": "naive-bayes"},
]
every_head = pytest.mark.parametrize("head", EVERY_HEAD, ids=name_of)
LABELS = torch.tensor([1, 0, 1])


def loss_of(model, inputs, cells, flat):
    """The joint loss of a batch: three masked tokens a pair, and a label of every second pair."""
    masked = torch.from_numpy(cells[(flat.starts[:, None] + [1, 2, 3]).flatten()])
    labelled = torch.from_numpy(cells[flat.starts[::2]])
    output = model(**inputs, masked_cells=masked, pair_cells=labelled)
    batch = {
        "masked_labels": 7 + torch.arange(len(masked)) % 30,
        "pair_labels": torch.arange(len(labelled)) % 2,
        "joint_weight": torch.tensor(1.0),
    }
    return joint_objective(model, 2.0)(output, batch)


@every_head
@pytest.mark.parametrize("changes", EVERY_ENCODER, ids=name_of)
def test_packed_rows_give_the_losses_and_gradients_of_padded_ones(changes, head):
    model = build(**changes, **head).train()
    flat, packed = packed_pairs(draw_pairs(9))
    inputs, cells = pad(flat)
    together = loss_of(model, packed.inputs, packed.cells, flat)
    together.backward()
    of_packed = gradients(model)
    model.zero_grad()
    alone = loss_of(model, inputs, cells, flat)
    alone.backward()
    torch.testing.assert_close(together, alone)
    assert_same_tensors(of_packed, gradients(model))
    assert len(of_packed) == len(list(model.parameters()))


@every_head
def test_logits_at_chosen_cells_equal_those_of_the_whole_rows(head):
    model = build(**head)
    _, packed = packed_pairs(PAIRS)
    masked = torch.from_numpy(packed.cells[[2, 5, 9]])
    with torch.inference_mode():
        output = model(**packed.inputs, masked_cells=masked)
        everywhere = model(**packed.inputs)
    assert output.pair_logits.shape[0] == 0
    assert everywhere.pair_logits is None
    assert everywhere.logits.shape == (*packed.input_ids.shape, model.config.vocab_size)
    torch.testing.assert_close(output.logits, everywhere.logits.flatten(0, 1)[masked])


def test_a_label_is_one_more_predicted_token():
    model = build()
    flat, packed = packed_pairs(PAIRS)
    at_cls = torch.from_numpy(packed.cells[flat.starts])
    with torch.inference_mode():
        as_tokens = model(**packed.inputs, masked_cells=at_cls).logits
        as_labels = model(**packed.inputs, pair_cells=at_cls).pair_logits
    torch.testing.assert_close(as_labels, as_tokens)
    assert model.first_label_column == Special.NO


@pytest.mark.parametrize("has_dense", [True, False])
def test_the_mlm_head_is_its_formula(has_dense):
    head = (model := build(mlm_head_dense=has_dense)).mlm_head
    embedding = model.get_input_embeddings().weight
    hidden = torch.randn(5, model.config.hidden_size)
    x = hidden
    if has_dense:
        x = F.gelu(x @ head.dense.weight.T + head.dense.bias)
        x = F.layer_norm(x, x.shape[-1:], head.norm.weight, head.norm.bias, 1e-12)
    torch.testing.assert_close(head(hidden, embedding), x @ embedding.T + head.bias)
    names = {name for name, _ in head.named_parameters()}
    rest = {"dense.weight", "dense.bias", "norm.weight", "norm.bias"} if has_dense else set()
    assert names == {"bias"} | rest


def test_the_decoder_is_the_embedding_through_every_change_of_it():
    model = build()
    _, packed = packed_pairs(PAIRS)
    before = model(**packed.inputs).logits
    with torch.no_grad():
        model.get_input_embeddings().weight[39] += 1.0  # a token that no pair has
    after = model(**packed.inputs).logits
    torch.testing.assert_close(after[..., :39], before[..., :39])
    assert not torch.isclose(after[..., 39], before[..., 39]).any()


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls-mean"])
def test_the_classifier_is_its_formula(pooling):
    model = build(head="classifier", pooling=pooling)
    head = model.pair_head
    flat, packed = packed_pairs(PAIRS)
    hidden = model.encoder(**packed.inputs).last_hidden_state.flatten(0, 1)
    pooled = []
    for start, length in zip(flat.starts, flat.lengths, strict=True):
        tokens = hidden[packed.cells[start : start + length]]
        parts = {"cls": tokens[0], "mean": tokens.mean(dim=0)}
        pooled.append(torch.cat([parts[part] for part in pooling.split("-")]))
    features = torch.tanh(torch.stack(pooled) @ head.dense.weight.T + head.dense.bias)
    expected = features @ head.output.weight.T + head.output.bias
    pair_cells = torch.from_numpy(packed.cells[flat.starts])
    output = model(**packed.inputs, pair_cells=pair_cells)
    torch.testing.assert_close(output.pair_logits, expected)
    assert model.first_label_column == 0


def classify(model, *, seed=0):
    """Logits of the labelled pairs in a training step."""
    flat = flat_batch(PAIRS)
    inputs, cells = pad(flat)
    seed_everything(seed)
    model.train()
    return model(**inputs, pair_cells=torch.from_numpy(cells[flat.starts])).pair_logits


def classifier_with_dropout(num_samples):
    """Dropout in the head alone."""
    model = build(head="classifier", num_dropout_samples=num_samples)
    model.pair_head.dropout.p = 0.4
    return model


@pytest.mark.parametrize("loss", [label_loss, joint_loss])
def test_the_loss_is_the_mean_over_dropout_samples(loss):
    samples = classify(classifier_with_dropout(5))
    assert samples.shape == (5, 3, 2)
    assert len(samples.flatten(1).unique(dim=0)) == 5
    masked = () if loss is label_loss else (torch.empty(0, 40), torch.empty(0, dtype=torch.int64))

    def loss_at(logits):
        return loss(*masked, logits, LABELS, first_label_column=0)

    mean = torch.stack([loss_at(sample) for sample in samples]).mean()
    torch.testing.assert_close(loss_at(samples), mean)


def test_one_dropout_sample_is_the_plain_classifier():
    one, several = classify(classifier_with_dropout(1)), classify(classifier_with_dropout(4))
    assert one.shape == (3, 2)
    torch.testing.assert_close(several[0], one)


def test_samples_without_dropout_are_all_the_same_as_in_evaluation():
    model = build(head="classifier", num_dropout_samples=3)
    samples = classify(model)
    flat, packed = packed_pairs(PAIRS)
    pair_cells = torch.from_numpy(packed.cells[flat.starts])
    plain = model.eval()(**packed.inputs, pair_cells=pair_cells).pair_logits
    torch.testing.assert_close(samples, plain.expand(3, -1, -1))


def test_samples_differ_with_masks_from_the_bank_too():
    model = classifier_with_dropout(4)
    use_bank_dropout(model)
    assert len(classify(model).flatten(1).unique(dim=0)) == 4


BF16 = {"atol": 0.1, "rtol": 0.05}
"""Of logits with a deviation of some 1: 2 layers of 8 bits of mantissa."""


def with_all_logits(model, pairs):
    flat, packed = packed_pairs(pairs)
    cells = torch.from_numpy(packed.cells)
    return model(**packed.inputs, masked_cells=cells, pair_cells=cells[flat.starts])


@every_head
@pytest.mark.parametrize("changes", EVERY_ENCODER, ids=name_of)
def test_autocast_gives_the_logits_of_fp32(changes, head):
    model = build(**changes, **head)
    with torch.inference_mode():
        expected = with_all_logits(model, draw_pairs(9))
        with torch.autocast("cpu", torch.bfloat16):
            output = with_all_logits(model, draw_pairs(9))
    assert output.logits.dtype == torch.bfloat16
    assert output.pair_logits.dtype == torch.float32
    torch.testing.assert_close(output.logits.float(), expected.logits, **BF16)
    torch.testing.assert_close(output.pair_logits, expected.pair_logits, **BF16)


@every_head
def test_a_step_in_bf16_leaves_parameters_and_gradients_in_fp32(head):
    model = build(**head).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = with_all_logits(model, PAIRS)
        loss = label_loss(
            output.pair_logits, LABELS, first_label_column=model.first_label_column
        ) + F.cross_entropy(output.logits.float(), torch.zeros(len(output.logits)).long())
    loss.backward()
    assert output.logits.dtype == output.pair_logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
