from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from desmatch.data.batches import assemble
from desmatch.errors import UserError
from desmatch.model.batch import pad
from desmatch.model.masked_lm import build_model, load_model, save_model
from desmatch.model.scoring import score_pairs
from desmatch.recipe import ModelConfig
from desmatch.runs import seed_everything
from desmatch.schema import Special
from tests.conftest import encode_lists

PAIRS = [([7, 8, 9], [10]), ([11], [12, 13]), ([14, 15, 21, 22, 23], [16, 17, 18])]
SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def padded_pairs():
    rows = np.arange(len(PAIRS))
    flat = assemble(encode_lists(PAIRS), rows, np.zeros(len(PAIRS), bool))
    return flat, pad(flat)


@pytest.mark.parametrize("architecture", ["bert", "roformer"])
def test_a_saved_model_gives_the_same_logits_in_the_plain_class(architecture, tmp_path):
    seed_everything(1)
    model = build_model(ModelConfig(architecture=architecture, **SHAPE), vocab_size=40,
                        max_length=32).eval()  # fmt: skip
    save_model(model, tmp_path)
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert "Pair" not in type(plain).__name__
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [
        type(plain).__name__
    ]
    flat, padded = padded_pairs()
    with torch.inference_mode():
        theirs = plain(input_ids=padded.input_ids, attention_mask=padded.attention_mask).logits
        ours = model(
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            positions=torch.from_numpy(padded.cells),
        ).logits
        again = (
            load_model(tmp_path)
            .eval()(
                input_ids=padded.input_ids,
                attention_mask=padded.attention_mask,
                positions=torch.from_numpy(padded.cells),
            )
            .logits
        )
    assert len(ours) == len(flat.ids)
    torch.testing.assert_close(ours, theirs.flatten(0, 1)[torch.from_numpy(padded.cells)])
    torch.testing.assert_close(ours, again, rtol=0, atol=0)


def test_gradients_equal_those_of_the_plain_class(tiny_model):
    plain = BertForMaskedLM(BertConfig(**tiny_model.config.to_dict()))
    plain.load_state_dict(tiny_model.state_dict())
    plain.eval()
    _, padded = padded_pairs()
    positions = torch.from_numpy(padded.cells[[2, 5, 9]])
    targets = torch.tensor([9, 11, 30])
    tiny_model.zero_grad()
    chosen = tiny_model(
        input_ids=padded.input_ids, attention_mask=padded.attention_mask, positions=positions
    ).logits
    torch.nn.functional.cross_entropy(chosen, targets).backward()
    labels = torch.full((padded.input_ids.numel(),), -100)
    labels[positions] = targets
    plain(
        input_ids=padded.input_ids,
        attention_mask=padded.attention_mask,
        labels=labels.view_as(padded.input_ids),
    ).loss.backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in tiny_model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, msg=name)


def test_scores_do_not_see_padding_or_neighbours(tiny_model):
    together = score_pairs(tiny_model, encode_lists(PAIRS)).scores
    alone = [score_pairs(tiny_model, encode_lists([pair])).scores[0] for pair in PAIRS]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_scores_do_not_depend_on_the_order_of_the_texts(tiny_model):
    swapped = [(b, a) for a, b in PAIRS]
    there, back = (score_pairs(tiny_model, encode_lists(pairs)) for pairs in (PAIRS, swapped))
    np.testing.assert_allclose(there.scores, back.scores, atol=1e-6)
    np.testing.assert_allclose(there.forward, back.backward, atol=1e-5)
    assert not np.allclose(there.forward, there.backward)


def test_a_score_is_the_share_of_yes_beside_no(tiny_model):
    flat, padded = padded_pairs()
    with torch.inference_mode():
        probs = tiny_model(
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            positions=torch.from_numpy(padded.cells[flat.starts]),
        ).logits.softmax(dim=-1)
    yes, no = probs[:, int(Special.YES)], probs[:, int(Special.NO)]
    forward = score_pairs(tiny_model, encode_lists(PAIRS)).forward
    np.testing.assert_allclose(1 / (1 + np.exp(-forward)), (yes / (yes + no)).numpy(), atol=1e-6)


def test_scoring_leaves_the_training_mode_as_it_was(tiny_model):
    tiny_model.train()
    score_pairs(tiny_model, encode_lists(PAIRS))
    assert tiny_model.training


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "has no config.json"),
        ({"config.json": "{}"}, "has no model.safetensors"),
        ({"config.json": '{"model_type": "gpt2"}', "model.safetensors": ""},
         "model_type 'gpt2' is not read"),
        ({"config.json": '{"model_type": "bert"}', "model.safetensors": "x"},
         "the checkpoint cannot be read"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, files, reason):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=reason):
        load_model(tmp_path)
