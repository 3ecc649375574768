from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainerControl, TrainerState

from desmatch.metrics.roc import roc_auc
from desmatch.model.scoring import score_pairs
from desmatch.recipe_training import AdversarialConfig, AverageConfig
from desmatch.runs import StageFolder
from desmatch.train.averaging import LOOKAHEAD_SHARE, WeightAverage
from desmatch.train.validation import read_evaluations
from tests.train.test_trainer import same_weights, tiny, toy_rows, train

NUM_STEPS, EVERY = 24, 4
ARGUMENTS = SimpleNamespace(max_steps=NUM_STEPS, eval_steps=EVERY)


def walk(average, model, steps=NUM_STEPS, first=1):
    """Move the weights at random, as a training would, and yield them before each average."""
    generator = torch.Generator().manual_seed(first)
    for step in range(first, first + steps):
        with torch.no_grad():
            model.weight += torch.randn(model.weight.shape, generator=generator)
        yield model.weight.detach().clone()
        average.on_step_end(ARGUMENTS, TrainerState(global_step=step), TrainerControl())


def averaged(kind, **changes):
    model = torch.nn.Linear(3, 2, bias=False)
    return model, WeightAverage(model, AverageConfig(kind=kind, **changes))


def test_swa_is_the_mean_of_the_last_evaluations():
    model, average = averaged("swa", last=3)
    seen = list(walk(average, model))
    expected = torch.stack([seen[step - 1] for step in (16, 20, 24)]).mean(0)
    torch.testing.assert_close(average.average.module.weight, expected)


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_ema_is_that_of_a_loop(decay):
    model, average = averaged("ema", decay=decay)
    seen = list(walk(average, model))
    expected = seen[0]
    for number, weights in enumerate(seen[1:], start=1):
        share = min(decay, (1 + number) / (10 + number))
        expected = share * expected + (1 - share) * weights
    torch.testing.assert_close(average.average.module.weight, expected)


def test_lookahead_goes_half_way_and_on_from_there():
    model, average = averaged("lookahead", every=5)
    slow = None
    for step, weights in enumerate(walk(average, model), start=1):
        if step % 5 == 1 and step > 1:  # the step before was one of Lookahead's
            torch.testing.assert_close(average.average.module.weight, slow)
        if step % 5 == 0:
            slow = weights if slow is None else slow + LOOKAHEAD_SHARE * (weights - slow)
    torch.testing.assert_close(average.average.module.weight, slow)


def test_the_weights_of_a_validation_are_the_averages_and_come_back():
    model, average = averaged("ema")
    with average.in_place():
        assert not average.is_there
    list(walk(average, model))
    own = model.weight.detach().clone()
    with average.in_place():
        assert torch.equal(model.weight, average.average.module.weight)
        assert not torch.equal(model.weight, own)
    assert torch.equal(model.weight, own)


@pytest.mark.parametrize("kind", ["ema", "swa", "lookahead"])
def test_an_average_leaves_the_stage_in_place_of_the_weights(kind, tmp_path):
    model = tiny()
    plain = train(model, tmp_path / "plain")
    with_average = train(model, tmp_path / kind, average=AverageConfig(kind=kind, last=2))
    assert not same_weights(plain, with_average)


@pytest.mark.parametrize("kind", ["ema", "swa", "lookahead"])
def test_a_resumed_training_ends_in_the_same_average(kind, tmp_path, monkeypatch):
    model, config = tiny(), AverageConfig(kind=kind, last=3)
    whole = train(model, tmp_path / "whole", average=config)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        train(model, tmp_path / "cut", average=config, stop_after=15, monkeypatch=patch)
    resumed = train(model, tmp_path / "cut", average=config, may_resume=True)
    assert same_weights(whole, resumed)


def test_the_best_validation_is_that_of_the_average_which_is_kept(tmp_path):
    path = tmp_path / "best"
    kept = train(tiny(), path, average=AverageConfig(kind="ema", decay=0.8), keep="best")
    rows = toy_rows()
    logits = score_pairs(kept, rows.pairs)
    seen = read_evaluations(StageFolder(path, "digest").work)
    aucs = [roc_auc(rows.labels, each.scores) for each in seen]
    assert roc_auc(rows.labels, logits.scores) == max(aucs)
    np.testing.assert_allclose(logits.forward, seen[int(np.argmax(aucs))].forward, atol=1e-6)


@pytest.mark.parametrize("kind", ["fgm", "pgd", "awp"])
def test_attack_average_two_passes_and_a_resume_work_together(kind, tmp_path, monkeypatch):
    settings = {
        "adversarial": AdversarialConfig(kind=kind, num_steps=2),
        "average": AverageConfig(kind="ema"),
        "r_drop_weight": 1.0,
        "layer_decay": 0.9,
    }
    model = tiny()
    whole = train(model, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        train(model, tmp_path / "cut", stop_after=15, monkeypatch=patch, **settings)
    resumed = train(model, tmp_path / "cut", may_resume=True, **settings)
    assert same_weights(whole, resumed)
    assert not same_weights(whole, train(model, tmp_path / "plain"))
