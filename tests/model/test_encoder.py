from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForMaskedLM,
    RoFormerConfig,
    RoFormerForMaskedLM,
)

from desmatch.data.pack import pack
from desmatch.model.attention import ATTENTIONS
from desmatch.model.convert import to_ours
from desmatch.model.encoder import mean_of_pairs
from tests.model import reference
from tests.model.conftest import (
    EVERY_ENCODER,
    NO_DROPOUT,
    PAIRS,
    SHAPE,
    assert_same_tensors,
    build,
    draw_pairs,
    draw_parameters,
    flat_batch,
    gradients,
    name_of,
    packed_pairs,
    pad,
)

every_encoder = pytest.mark.parametrize("changes", EVERY_ENCODER, ids=name_of)
with_and_without_padding = pytest.mark.parametrize("lengths", [(9, 9, 9), (9, 4, 6)])

PRE_NORM_NAMES = {
    "roberta_prelayernorm.encoder": "encoder",
    "roberta_prelayernorm.embeddings": "embeddings",
    "attention.LayerNorm": "attention.output.LayerNorm",
    "intermediate.LayerNorm": "output.LayerNorm",
    "lm_head.dense": "cls.predictions.transform.dense",
    "lm_head.layer_norm": "cls.predictions.transform.LayerNorm",
    "lm_head": "cls.predictions",
}
"""RobertaPreLayerNorm's names of what `to_ours` knows under BERT's."""
PRE_NORM_LAST = "roberta_prelayernorm.LayerNorm"


def plain_model(model_class, config_class, **options):
    config = config_class(**SHAPE, **NO_DROPOUT, layer_norm_eps=1e-12, pad_token_id=0)
    return draw_parameters(model_class(config, **options), seed=4).eval()


def pre_norm_to_ours(theirs):
    renamed, last = {}, {}
    for name, tensor in theirs.items():
        if name.startswith(PRE_NORM_LAST):
            last[name.replace(PRE_NORM_LAST, "encoder.final_norm")] = tensor
            continue
        for there, here in PRE_NORM_NAMES.items():
            name = name.replace(there, here)
        renamed[name] = tensor
    return {**bert_to_ours(renamed), **last}


def bert_to_ours(theirs):
    return to_ours(theirs, num_heads=SHAPE["num_attention_heads"], is_rotary=False)


def roformer_to_ours(theirs):
    return to_ours(theirs, num_heads=SHAPE["num_attention_heads"], is_rotary=True)


def draw_inputs(lengths):
    """Rows of these lengths, padded, with both token types; the cells of their tokens."""
    generator = torch.Generator().manual_seed(8)
    width = max(lengths)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(7, SHAPE["vocab_size"], mask.shape, generator=generator) * mask
    types = torch.randint(0, 2, mask.shape, generator=generator) * mask
    inputs = {"input_ids": ids, "token_type_ids": types}
    if min(lengths) < width:
        inputs["attention_mask"] = mask
    return inputs, torch.nonzero(mask.flatten()).flatten()


def cross_entropy_of(logits, cells):
    """The loss of predicting token 7 + k modulo 30 at the k-th cell of (R, W, V) logits."""
    targets = 7 + torch.arange(len(cells)) % 30
    return F.cross_entropy(logits.flatten(0, 1)[cells], targets)


@with_and_without_padding
@pytest.mark.parametrize(
    ("model_class", "config_class", "convert", "changes"),
    [
        (BertForMaskedLM, BertConfig, bert_to_ours, {"position": "absolute"}),
        (RoFormerForMaskedLM, RoFormerConfig, roformer_to_ours, {"position": "rotary"}),
        (
            RobertaPreLayerNormForMaskedLM,
            RobertaPreLayerNormConfig,
            pre_norm_to_ours,
            {"position": "absolute", "norm": "pre"},
        ),
    ],
)
def test_logits_and_gradients_equal_those_of_transformers(
    model_class, config_class, convert, changes, lengths
):
    plain, ours = plain_model(model_class, config_class), build(**changes)
    ours.load_state_dict(convert(plain.state_dict()))
    inputs, cells = draw_inputs(lengths)
    theirs = plain(**inputs).logits
    if changes.get("norm") == "pre":  # their positions count from the padding's id on
        inputs["position_ids"] = (1 + torch.arange(max(lengths))).expand(len(lengths), -1)
    logits = ours(**inputs).logits
    torch.testing.assert_close(logits.flatten(0, 1)[cells], theirs.flatten(0, 1)[cells])
    cross_entropy_of(theirs, cells).backward()
    cross_entropy_of(logits, cells).backward()
    assert_same_tensors(gradients(ours), convert(gradients(plain)))
    assert len(gradients(ours)) == len(list(ours.parameters()))


@with_and_without_padding
def test_hidden_states_and_gradients_equal_those_of_a_bert_model(lengths):
    plain = plain_model(BertModel, BertConfig, add_pooling_layer=False)
    ours = build().encoder
    convert = {
        name.removeprefix("encoder."): tensor
        for name, tensor in bert_to_ours(plain.state_dict()).items()
    }
    ours.load_state_dict(convert)
    inputs, cells = draw_inputs(lengths)
    weights = torch.randn(len(cells), SHAPE["hidden_size"]) / len(cells)
    hidden = [model(**inputs).last_hidden_state.flatten(0, 1)[cells] for model in (plain, ours)]
    torch.testing.assert_close(hidden[1], hidden[0])
    for each in hidden:
        (each * weights).sum().backward()
    expected = bert_to_ours(gradients(plain))
    assert_same_tensors(
        {f"encoder.{name}": tensor for name, tensor in gradients(ours).items()}, expected
    )


@every_encoder
def test_hidden_states_and_gradients_equal_those_of_loops(changes):
    num_tokens = 70 if changes["position"] == "relative" else 12  # beyond the clipped distance
    model = build(**changes).encoder
    ids = torch.randint(7, 40, (num_tokens,), generator=torch.Generator().manual_seed(1))
    types = (torch.arange(num_tokens) > 5).long()
    ours = model(ids[None], token_type_ids=types[None]).last_hidden_state[0]
    slow = reference.encode(model, ids, types)
    torch.testing.assert_close(ours, slow, atol=1e-5, rtol=1e-5)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2)) / num_tokens
    parameters = dict(model.named_parameters())
    fast, expected = (
        torch.autograd.grad((hidden * weights).sum(), list(parameters.values()))
        for hidden in (ours, slow)
    )
    assert_same_tensors(
        dict(zip(parameters, fast, strict=True)), dict(zip(parameters, expected, strict=True))
    )


@pytest.mark.parametrize("position", sorted(ATTENTIONS))
def test_a_gpu_s_attention_is_that_of_a_cpu(position, monkeypatch):
    model = build(position=position).encoder
    _, packed = packed_pairs(draw_pairs(9))
    parameters = dict(model.named_parameters())
    weights = torch.randn(SHAPE["hidden_size"], generator=torch.Generator().manual_seed(2))

    def hidden_and_gradients():
        hidden = model(**packed.inputs).last_hidden_state.flatten(0, 1)[packed.cells]
        loss = (hidden @ weights).sum() / len(hidden)
        return hidden, dict(
            zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True)
        )

    hidden, gradients = hidden_and_gradients()
    attention = ATTENTIONS[position]
    monkeypatch.setattr(attention, "attend", attention.attend_on_gpu)
    of_gpu, gradients_of_gpu = hidden_and_gradients()
    torch.testing.assert_close(of_gpu, hidden)
    assert_same_tensors(gradients_of_gpu, gradients)


@every_encoder
def test_without_gradients_the_hidden_states_are_the_same(changes):
    model = build(**changes).encoder
    _, packed = packed_pairs(draw_pairs(9))
    expected = model(**packed.inputs).last_hidden_state
    with torch.inference_mode():
        hidden = model(**packed.inputs).last_hidden_state
    torch.testing.assert_close(hidden, expected.detach())


@every_encoder
def test_packed_rows_give_the_hidden_states_of_padded_ones(changes):
    model = build(**changes).encoder
    flat = flat_batch(draw_pairs(9))
    _, packed = packed_pairs(draw_pairs(9))
    assert len(packed.input_ids) < len(flat.lengths)
    padded, cells = pad(flat)
    together = model(**packed.inputs).last_hidden_state.flatten(0, 1)[packed.cells]
    alone = model(**padded).last_hidden_state.flatten(0, 1)[cells]
    torch.testing.assert_close(together, alone)


@every_encoder
def test_chosen_cells_of_the_last_layer_equal_those_picked_afterwards(changes):
    model = build(**changes).encoder
    _, packed = packed_pairs(draw_pairs(9))
    cells = torch.from_numpy(packed.cells[[0, 3, 3, 17, 40]])
    chosen = model(**packed.inputs, cells=cells).last_hidden_state
    picked = model(**packed.inputs).last_hidden_state.flatten(0, 1)[cells]
    torch.testing.assert_close(chosen, picked)
    weights = torch.randn(chosen.shape, generator=torch.Generator().manual_seed(2))
    parameters = dict(model.named_parameters())
    of_chosen, of_picked = (
        dict(
            zip(
                parameters,
                torch.autograd.grad((hidden * weights).sum(), list(parameters.values())),
                strict=True,
            )
        )
        for hidden in (chosen, picked)
    )
    assert_same_tensors(of_chosen, of_picked)


MODELS = {name_of(changes): build(**changes).encoder for changes in EVERY_ENCODER}

texts = st.lists(st.integers(7, 39), min_size=1, max_size=9)
pairs_of_ids = st.tuples(texts, texts)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(MODELS)),
    pair=pairs_of_ids,
    before=st.lists(pairs_of_ids, max_size=5),
    after=st.lists(pairs_of_ids, max_size=5),
)
def test_tokens_do_not_see_their_neighbours_in_the_row(name, pair, before, after):
    model = MODELS[name]
    flat, packed = packed_pairs([*before, pair, *after])
    _, alone = packed_pairs([pair], packing=partial(pack, row_length=1))
    start, length = flat.starts[len(before)], flat.lengths[len(before)]
    cells = packed.cells[start : start + length]
    with torch.inference_mode():
        together = model(**packed.inputs).last_hidden_state.flatten(0, 1)[cells]
        expected = model(**alone.inputs).last_hidden_state[0]
    torch.testing.assert_close(together, expected)


def test_the_mean_of_a_pair_is_over_its_own_tokens():
    flat, packed = packed_pairs(PAIRS, packing=partial(pack, row_length=8))
    hidden = torch.randn(packed.input_ids.numel(), 5)
    pair_cells = torch.from_numpy(packed.cells[flat.starts])
    means = mean_of_pairs(hidden, packed.attention_mask, pair_cells)
    for pair, (start, length) in enumerate(zip(flat.starts, flat.lengths, strict=True)):
        tokens = hidden[packed.cells[start : start + length]]
        torch.testing.assert_close(means[pair], tokens.mean(dim=0))


def test_the_mean_of_a_padded_row_leaves_the_padding_out():
    inputs, cells = pad(flat_batch(PAIRS))
    hidden = torch.randn(inputs["input_ids"].numel(), 5)
    first = torch.arange(len(PAIRS)) * inputs["input_ids"].shape[1]
    means = mean_of_pairs(hidden, inputs["attention_mask"], first)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    expected = [tokens.mean(dim=0) for tokens in hidden[cells].split(lengths)]
    torch.testing.assert_close(means, torch.stack(expected))
