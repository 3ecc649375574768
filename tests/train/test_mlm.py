from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from desmatch.cli import main
from desmatch.model.checkpoints import load_model
from desmatch.model.heads import model_inputs
from desmatch.recipe import Recipe
from desmatch.recipe_training import TrainingConfig
from desmatch.stages import load_run
from desmatch.train.mlm import masked_rows
from desmatch.train.pretrain import joint_labels, joint_rows, starting_model

MLM = [
    "--mlm.num_train_epochs=1",
    "--mlm.batch_size=16",
    "--mlm.learning_rate=0.003",
    "--mlm.num_evaluations=2",
]


def run(data, out, options):
    return main(["run", "--recipe", "demo", "--data", str(data), "--out", str(out), *options])


@pytest.fixture(scope="module")
def two_stages(sample_folder, tmp_path_factory, tiny_options):
    """A run of three folds: masked tokens for all, then labels alone for each."""
    out = tmp_path_factory.mktemp("mlm") / "run"
    options = [*tiny_options, *MLM, "--pretrain.num_train_epochs=0", "--folds=3"]
    assert run(sample_folder, out, options) == 0
    return out, options


def test_all_folds_go_on_from_one_training_on_masked_tokens(two_stages):
    out, _ = two_stages
    minutes = json.loads((out / "stages.json").read_text())
    assert [name for name in minutes if "mlm" in name] == ["mlm"]
    assert not list(out.glob("fold-*/pretrained"))
    history = json.loads((out / "mlm" / "history.json").read_text())
    losses = [line["mlm_loss"] for line in history if "mlm_loss" in line]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    runs = load_run(out).folds
    assert {part.model_before("finetuned") for part in runs} == {out / "mlm"}
    assert {part.first_model for part in runs} == {out / "mlm"}
    card = json.loads((out / "card.json").read_text())
    assert card["start"] == {"init": None}
    assert "Training: mlm" in (out / "report.html").read_text()


def test_masked_tokens_are_trained_on_without_a_look_at_labels(two_stages, sample_folder, tmp_path):
    out, options = two_stages
    flipped = tmp_path / "flipped"
    shutil.copytree(sample_folder, flipped)
    rows = [line.rsplit("\t", 1) for line in (flipped / "train.tsv").read_text().splitlines()]
    lines = [f"{texts}\t{1 - int(label)}\n" for texts, label in rows]
    (flipped / "train.tsv").write_text("".join(lines))
    command = ["--data", str(flipped), "--out", str(tmp_path / "run"), *options]
    assert main(["prepare", "--recipe", "demo", *command]) == 0
    assert main(["mlm", str(tmp_path / "run")]) == 0
    weights = [folder / "mlm" / "model.safetensors" for folder in (out, tmp_path / "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_other_folds_use_the_same_training_on_masked_tokens(
    two_stages, sample_folder, tmp_path, capsys
):
    out, options = two_stages
    shutil.copytree(out / "mlm", tmp_path / "one" / "mlm")
    options = [each for each in options if each != "--folds=3"]
    assert run(sample_folder, tmp_path / "one", options) == 0
    assert f"mlm: {tmp_path / 'one' / 'mlm'} still holds, skipped" in capsys.readouterr().out
    tables = [
        pq.read_table(path)
        for path in (out / "predictions" / "fold-0" / "validation.parquet",
                     tmp_path / "one" / "predictions" / "validation.parquet")
    ]  # fmt: skip
    assert tables[0].equals(tables[1])


def test_another_split_of_the_rows_needs_no_other_training_on_masked_tokens(two_stages):
    run = load_run(two_stages[0])

    def digests(part, **changes):
        values = dataclasses.replace(getattr(run.recipe, part), **changes)
        other = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, **{part: values}))
        return [other.digest(written) == run.digest(written) for written in ("prepared", "mlm")]

    assert digests("validation", num_folds=2, random_share=0.1, split_seed=5) == [False, True]
    assert digests("data", min_count=3) == [False, False]
    assert digests("mlm", learning_rate=1e-5) == [True, False]
    assert digests("finetune", learning_rate=1e-5) == [True, True]


def test_the_loss_on_the_way_is_the_mean_over_masked_tokens(two_stages):
    out, _ = two_stages
    prepared, recipe = load_run(out).prepared, load_run(out).recipe
    model = starting_model(prepared, recipe)[0].train()
    rows = joint_rows(prepared, joint_labels(prepared, 0))
    judged = masked_rows(prepared, recipe, rows)
    (loss,) = judged.evaluate(model, in_bf16=False).figures.values()
    assert model.training
    model.eval()
    losses = []
    with torch.no_grad():
        for batch in judged.batches:
            probs = model(**model_inputs(batch)).logits.log_softmax(-1)
            labels = batch["masked_labels"]
            losses += [-float(row[label]) for row, label in zip(probs, labels, strict=True)]
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert load_model(out / "mlm").config.vocab_size == model.config.vocab_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlm": TrainingConfig(num_train_epochs=1)}, "mlm.keep: expected last"),
        ({"mlm": TrainingConfig(keep="last", mlm_probability=0)}, "mlm.mlm_probability: expected"),
        ({"mlm": TrainingConfig(num_train_epochs=1, keep="last"),
          "pretrain": TrainingConfig(objective="heat")}, "pretrain.objective: expected mlm"),
        ({"pretrain": TrainingConfig(num_train_epochs=0),
          "finetune": TrainingConfig(num_train_epochs=0)}, "finetune.num_train_epochs: expected"),
    ],
)  # fmt: skip
def test_stages_that_lead_nowhere_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Recipe(**changes)
