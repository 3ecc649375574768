from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from desmatch.errors import DivergedError, UserError
from desmatch.model.batch import (
    UNLABELED,
    TrainingBatches,
    TrainingRows,
    Vocabularies,
)
from desmatch.model.checkpoints import build_model, load_model
from desmatch.model.heads import model_inputs
from desmatch.model.scoring import score_pairs
from desmatch.recipe import MachineConfig, ModelConfig, Recipe
from desmatch.recipe_training import TrainingConfig
from desmatch.runs import StageFolder, seed_everything
from desmatch.schema import Special
from desmatch.train.checkpoints import last_checkpoint
from desmatch.train.finetune import label_objective
from desmatch.train.pretrain import joint_objective
from desmatch.train.trainer import (
    StageTrainer,
    train_stage,
    warmup_ratio,
)
from desmatch.train.validation import ValidationRows, read_evaluations
from tests.conftest import encode_lists

FP32 = Recipe(machine=MachineConfig(precision="fp32", num_threads=1))


EVERY_MODEL = {
    "label-tokens": {},
    "classifier": {"head": "classifier", "pooling": "cls-mean", "num_dropout_samples": 3},
    "naive-bayes": {"head": "naive-bayes", "num_dropout_samples": 2},
    "pre-norm": {"position": "rotary", "norm": "pre", "mlm_head_dense": False},
}
every_model = pytest.mark.parametrize("changes", EVERY_MODEL.values(), ids=EVERY_MODEL)


def tiny(**changes):
    """2 layers, D 16, V 40, with dropout."""
    seed_everything(0)
    config = ModelConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **changes
    )
    return build_model(config, vocab_size=40, max_length=32)


def toy_rows(num_pairs=48, seed=0):
    """Pairs of texts of few ids; the label says whether they share their first id."""
    rng = np.random.default_rng(seed)
    texts = rng.integers(7, 40, (num_pairs, 2, 5))
    labels = (rng.random(num_pairs) < 0.5).astype(np.int8)
    texts[labels == 1, 1, 0] = texts[labels == 1, 0, 0]
    pairs = [(a.tolist(), b.tolist()) for a, b in texts]
    return TrainingRows(encode_lists(pairs), labels)


def stage_parts(rows, **changes):
    config = TrainingConfig(
        **{
            "num_train_epochs": 4,
            "batch_size": 8,
            "learning_rate": 5e-3,
            "num_evaluations": 4,
            "keep": "last",
            **changes,
        }
    )
    batches = TrainingBatches(rows, config, Vocabularies(7, 40), seed=2, stage="toy")
    return batches, ValidationRows(rows.pairs, rows.labels)


def train(model, path, *, stop_after=None, monkeypatch=None, may_resume=False, **changes):
    """Train a copy of the model; with `stop_after`, fall over in that many steps."""
    rows = toy_rows()
    batches, validation = stage_parts(rows, **changes)
    seed_everything(2)
    model = copy.deepcopy(model)
    if stop_after is not None:
        step = StageTrainer.training_step
        calls = iter(range(stop_after))

        def stumbling(self, *args, **kwargs):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return step(self, *args, **kwargs)

        monkeypatch.setattr(StageTrainer, "training_step", stumbling)
    train_stage(
        model,
        batches,
        joint_objective(model, 1.0),
        validation,
        recipe=FP32,
        stage=StageFolder(path, "digest", may_resume),
    )
    return model


def same_weights(first, second):
    return all(
        torch.equal(tensor, second.state_dict()[name])
        for name, tensor in first.state_dict().items()
    )


@every_model
def test_the_same_seed_gives_the_same_weights(changes, tmp_path):
    model = tiny(**changes)
    first, second = (train(model, tmp_path / name, num_train_epochs=2) for name in "ab")
    assert same_weights(first, second)
    moved = [name for name, tensor in first.state_dict().items()
             if not torch.equal(tensor, model.state_dict()[name])]  # fmt: skip
    assert moved == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_resumed_training_ends_like_an_uninterrupted_one(tiny_model, tmp_path, monkeypatch, keep):
    whole = train(tiny_model, tmp_path / "whole", keep=keep)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        train(tiny_model, tmp_path / "cut", stop_after=15, monkeypatch=patch, keep=keep)
    assert last_checkpoint(tmp_path / ".cut.making").endswith("checkpoint-12")
    with pytest.raises(UserError, match="add --resume"):
        train(tiny_model, tmp_path / "cut", keep=keep)
    resumed = train(tiny_model, tmp_path / "cut", may_resume=True, keep=keep)
    assert same_weights(whole, resumed)
    for there, here in zip(
        read_evaluations(tmp_path / ".whole.making"),
        read_evaluations(tmp_path / ".cut.making"),
        strict=True,
    ):
        np.testing.assert_array_equal(there.forward, here.forward)


def test_the_best_weights_are_kept(tiny_model, tmp_path):
    from sklearn.metrics import roc_auc_score

    model = train(tiny_model, tmp_path / "stage", keep="best", num_train_epochs=8)
    rows = toy_rows()
    evaluations = read_evaluations(tmp_path / ".stage.making")
    aucs = [roc_auc_score(rows.labels, each.scores) for each in evaluations]
    kept = roc_auc_score(rows.labels, score_pairs(model, rows.pairs).scores)
    assert kept == pytest.approx(max(aucs))


def test_a_broken_checkpoint_is_named(tiny_model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        train(tiny_model, tmp_path / "cut", stop_after=15, monkeypatch=patch)
    weights = tmp_path / ".cut.making" / "checkpoint-12" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model.safetensors: damaged, 100 bytes instead of"):
        train(tiny_model, tmp_path / "cut", may_resume=True)


def test_unlabelled_rows_have_no_gradient_from_labels(tiny_model):
    rows = toy_rows()
    bare = TrainingRows(rows.pairs, np.full(len(rows.labels), UNLABELED, np.int8))
    batches, _ = stage_parts(bare, mlm_probability=0.0)
    batch = batches[0]
    loss = joint_objective(tiny_model, 5.0)(tiny_model(**model_inputs(batch)), batch)
    loss.backward()
    assert loss.item() == 0
    assert all(
        parameter.grad is None or not parameter.grad.any() for parameter in tiny_model.parameters()
    )


@every_model
def test_a_tiny_model_learns_eight_pairs_by_heart(changes):
    model = tiny(**changes).eval()
    rows = toy_rows(8)
    batches, _ = stage_parts(rows, mlm_probability=0.0, num_train_epochs=150)
    objective = label_objective(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(150):
        batch = batches[step]
        loss = objective(model(**model_inputs(batch)), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_the_joint_objective_counts_a_label_by_its_weight(tiny_model, weight):
    batch = stage_parts(toy_rows(), mlm_probability=0.3)[0][0]
    output = tiny_model(**model_inputs(batch))
    masked = F.cross_entropy(output.logits, batch["masked_labels"], reduction="sum")
    labels = batch["pair_labels"].long() + int(Special.NO)
    pairs = F.cross_entropy(output.pair_logits, labels, reduction="sum")
    expected = (masked + weight * pairs) / (len(batch["masked_labels"]) + weight * len(labels))
    torch.testing.assert_close(joint_objective(tiny_model, weight)(output, batch), expected)


def test_the_last_stage_trains_labels_alone_though_tokens_are_masked(tiny_model):
    batch = stage_parts(toy_rows(), mlm_probability=0.3)[0][0]
    output = tiny_model(**model_inputs(batch))
    two = output.pair_logits[:, int(Special.NO) : int(Special.YES) + 1]
    expected = F.cross_entropy(two, batch["pair_labels"].long())
    torch.testing.assert_close(label_objective(tiny_model)(output, batch), expected)


@pytest.mark.parametrize(
    ("changes", "norm", "ratio"),
    [
        ({}, "post", 0.05),
        ({}, "deepnorm", 0.05),
        ({}, "pre", 0.0),
        ({"warmup_ratio": 0.2}, "pre", 0.2),
        ({"warmup_ratio": 0.0}, "post", 0.0),
    ],
)
def test_pre_norm_needs_no_warm_up_unless_the_recipe_says_so(changes, norm, ratio):
    assert warmup_ratio(TrainingConfig(**changes), norm) == ratio


def test_a_saved_stage_scores_like_the_trained_model(finished_run):
    rows = toy_rows()
    model = load_model(finished_run / "fold-0" / "finetuned")
    again = load_model(finished_run / "fold-0" / "finetuned")
    np.testing.assert_array_equal(
        score_pairs(model, rows.pairs).forward, score_pairs(again, rows.pairs).forward
    )


def test_early_stopping_ends_a_stage_that_gets_no_better(tmp_path):
    model = tiny()
    settings = {"keep": "best", "num_evaluations": 8, "learning_rate": 1e-9}
    train(model, tmp_path / "patient", **settings)
    train(model, tmp_path / "stopped", early_stopping_patience=2, **settings)
    patient, stopped = (
        read_evaluations(StageFolder(tmp_path / name, "digest").work)
        for name in ("patient", "stopped")
    )
    assert len(patient) == 8
    assert len(stopped) == 3  # the first one is the best, two more are no better


def test_two_passes_with_one_dropout_mask_change_nothing(tmp_path):
    model = tiny()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    once = train(model, tmp_path / "once")
    twice = train(model, tmp_path / "twice", r_drop_weight=4.0)
    for name, tensor in once.state_dict().items():
        torch.testing.assert_close(tensor, twice.state_dict()[name])


def test_a_training_that_diverges_is_named_with_the_mend(tiny_model):
    with torch.no_grad():
        tiny_model.encoder.embeddings.word.weight[-1] = torch.nan
    pairs = encode_lists([([39], [38]), ([20], [21])])
    rows = ValidationRows(pairs, np.array([0, 1], np.int8))
    with pytest.raises(DivergedError, match=r"not finite; set the stage's learning_rate lower"):
        rows.evaluate(tiny_model, in_bf16=False)
