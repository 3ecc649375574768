from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from desmatch.cli import main
from desmatch.ensemble.naive_bayes import NaiveBayes, prior_logit
from desmatch.matcher import PairMatcher
from desmatch.model.checkpoints import load_model
from desmatch.model.losses import label_loss
from desmatch.prepare import Prepared, training_mask
from desmatch.runs import seed_everything
from tests.model.conftest import (
    PAIRS,
    build,
    draw_pairs,
    flat_batch,
    gradients,
    packed_pairs,
    pad,
)

TIGHT = {"atol": 1e-6, "rtol": 1e-6}


def naive_bayes(**changes):
    """A model in float64 with a prior."""
    model = build(head="naive-bayes", **changes).double()
    model.pair_head.prior.fill_(-0.8)
    return model


def tokens_of_pairs(model, pairs):
    """The hidden states of each pair's own tokens: a list of (L, D)."""
    flat, packed = packed_pairs(pairs)
    hidden = model.encoder(**packed.inputs).last_hidden_state.double().flatten(0, 1)
    bounds = [*flat.starts, flat.starts[-1] + flat.lengths[-1]]
    return [hidden[packed.cells[start:end]] for start, end in pairwise(bounds)]


def head_of(model, pairs):
    flat, packed = packed_pairs(pairs)
    hidden = model.encoder(**packed.inputs).last_hidden_state.double().flatten(0, 1)
    cells = torch.from_numpy(packed.cells[flat.starts])
    head = model.pair_head.train()  # keeps float64; there is no dropout
    return head(hidden, packed.attention_mask, cells)


def test_the_head_is_attention_pooling_of_votes():
    """Torch's attention with a query and a key matrix, each pair on its own, votes as values."""
    model = naive_bayes()
    head, width = model.pair_head, model.config.hidden_size
    generator = torch.Generator().manual_seed(3)
    key = torch.randn(width, width, generator=generator).double()
    query = torch.randn(width, width, generator=generator).double()
    query_bias, key_bias = torch.randn(2, width, generator=generator).double()
    with torch.no_grad():
        head.query.weight.copy_(key.T @ query)  # q(h) . k(h') = h' . (K^T Q h + K^T b) + const
        head.query.bias.copy_(key.T @ query_bias)
    expected = []
    for tokens in tokens_of_pairs(model, draw_pairs(9)):
        pooled = F.scaled_dot_product_attention(
            (tokens[:1] @ query.T + query_bias)[None],
            (tokens @ key.T + key_bias)[None],
            (tokens @ head.vote.weight.T + head.vote.bias)[None],
        ).squeeze()
        of_cls = tokens[0] @ head.cls.weight[0] + head.cls.bias[0]
        expected.append((1 + head.beta[0]) * pooled - head.beta[0] * head.prior[0] + of_cls)
    no, yes = head_of(model, draw_pairs(9)).unbind(dim=1)
    assert not no.any()
    torch.testing.assert_close(yes, torch.stack(expected), **TIGHT)


def test_the_head_is_naive_bayes_over_tokens_where_all_are_heard_alike():
    """Without a query the weights are even: the rule for members, with the head's beta."""
    model = naive_bayes()
    head = model.pair_head
    with torch.no_grad():
        for each in (head.query.weight, head.query.bias, head.cls.weight, head.cls.bias):
            each.zero_()
        head.beta.fill_(1.7)
    pairs = draw_pairs(5)
    rule = NaiveBayes(prior=-0.8, beta=1.7)
    votes = [head.vote(tokens).detach().numpy() for tokens in tokens_of_pairs(model, pairs)]
    expected = np.concatenate([rule.apply(each) for each in votes])
    np.testing.assert_allclose(head_of(model, pairs)[:, 1].detach(), expected, atol=1e-6)


def test_without_beta_the_prior_has_no_say_and_with_it_the_evidence_counts_more():
    model = naive_bayes()
    with torch.no_grad():
        model.pair_head.beta.zero_()
    plain = head_of(model, PAIRS)
    model.pair_head.prior.fill_(5.0)
    torch.testing.assert_close(head_of(model, PAIRS), plain)
    with torch.no_grad():
        model.pair_head.beta.fill_(0.5)
    assert not torch.isclose(head_of(model, PAIRS)[:, 1], plain[:, 1]).any()


def test_packed_pairs_get_the_logits_that_each_gets_alone():
    model = build(head="naive-bayes")
    pairs = draw_pairs(12)
    flat, packed = packed_pairs(pairs)
    cells = torch.from_numpy(packed.cells[flat.starts])
    together = model(**packed.inputs, pair_cells=cells).pair_logits
    first = torch.zeros(1, dtype=torch.int64)
    alone = [model(**pad(flat_batch([pair]))[0], pair_cells=first).pair_logits for pair in pairs]
    torch.testing.assert_close(together, torch.cat(alone))


def test_every_parameter_of_the_head_learns_and_through_it_every_token():
    model = build(head="naive-bayes").train()
    flat, packed = packed_pairs(draw_pairs(9))
    cells = torch.from_numpy(packed.cells[flat.starts])
    logits = model(**packed.inputs, pair_cells=cells).pair_logits
    label_loss(logits, torch.arange(9) % 2, first_label_column=0).backward()
    found = {name: each for name, each in gradients(model).items() if "pair_head" in name}
    assert len(found) == len(list(model.pair_head.parameters()))
    assert all(each.any() for each in found.values())
    embedding = gradients(model)["encoder.embeddings.word.weight"]
    assert embedding[np.unique(flat.ids)].any(dim=1).all()


def test_dropout_draws_as_many_samples_as_asked_for():
    model = build(head="naive-bayes", num_dropout_samples=3)
    model.pair_head.dropout.p = 0.4
    flat, packed = packed_pairs()
    cells = torch.from_numpy(packed.cells[flat.starts])
    seed_everything(0)
    drawn = model.train()(**packed.inputs, pair_cells=cells).pair_logits
    assert drawn.shape == (3, 3, 2)
    assert len(drawn.flatten(1).unique(dim=0)) == 3
    assert model.eval()(**packed.inputs, pair_cells=cells).pair_logits.shape == (3, 2)


@pytest.mark.parametrize("objective", ["mlm", "heat"])
def test_a_run_with_the_head_from_rows_to_scores(
    objective, sample_folder, tmp_path, tiny_options, capsys
):
    out = tmp_path / "run"
    words = ["run", "--recipe", "demo", "--data", str(sample_folder), "--out", str(out)]
    more = ["--model.head=naive-bayes", f"--pretrain.objective={objective}"]
    assert main([*words, *tiny_options, *more]) == 0
    prepared = Prepared.load(out / "prepared")
    labels = prepared.train_column("label")[training_mask(prepared, 0)]
    start, end = (load_model(out / "fold-0" / each) for each in ("pretrained", "finetuned"))
    for model in (start, end):
        assert model.pair_head.prior.item() == pytest.approx(prior_logit(labels))
    assert end.pair_head.beta.item() != start.pair_head.beta.item() != 0
    lines = (sample_folder / "test.tsv").read_text().splitlines()
    scores = PairMatcher.from_pretrained(out).predict_proba([line.split("\t") for line in lines])
    written = [float(line) for line in (out / "submission" / "result.tsv").read_text().split()]
    np.testing.assert_allclose(scores[:, 1], written, atol=1e-6)
    capsys.readouterr()
    assert main(["export", str(out), "--out", str(tmp_path / "plain")]) == 2
    assert "no model with a naive Bayes head" in capsys.readouterr().err
