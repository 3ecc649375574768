from __future__ import annotations

import copy
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from desmatch import diagnose as module
from desmatch.cli import main
from desmatch.diagnose import (
    DIAGNOSIS,
    diagnose,
    gradient_norms,
    last_scale_ratio,
    norm_scales,
    part_figures,
    relative_updates,
)
from desmatch.errors import UserError
from desmatch.model.checkpoints import load_model
from desmatch.model.configuration import MatchConfig
from desmatch.model.heads import MatchForPairs
from desmatch.runs import read_json
from desmatch.stages import load_run
from desmatch.train.pretrain import joint_objective

PARTS = ["embedding", "layer 1", "layer 2", "MLM head"]
NORMS = ["embedding", "layer 1, attention", "layer 1, feed-forward", "layer 2, attention",
         "layer 2, feed-forward", "MLM head"]  # fmt: skip


@pytest.fixture
def batch():
    """Two pairs of one row each, a label for the first."""
    return {
        "input_ids": torch.tensor([[2, 8, 4, 3, 9, 3], [2, 4, 12, 3, 13, 3]]),
        "masked_cells": torch.tensor([2, 7]),
        "pair_cells": torch.tensor([0]),
        "masked_labels": torch.tensor([10, 11]),
        "pair_labels": torch.tensor([1]),
        "joint_weight": torch.tensor(1.0),
    }


def test_the_verb_writes_figures_of_every_layer(finished_run, capsys):
    assert main(["diagnose", str(finished_run), "--batches", "2"]) == 0
    printed = capsys.readouterr().out
    folder = finished_run / DIAGNOSIS
    assert {path.name for path in folder.iterdir()} == {
        "diagnosis.json", "gamma.svg", "gradients.svg", "updates.svg",
    }  # fmt: skip
    figures = read_json(folder / "diagnosis.json")
    assert (figures["start"], figures["end"], figures["batches"]) == ("start", "finetuned", 2)
    assert [each["name"] for each in figures["norms"]] == NORMS
    assert [each["name"] for each in figures["parts"]] == PARTS
    assert all(each["start"] == 1 != each["end"] for each in figures["norms"])
    for each in figures["parts"]:
        assert each["name"] in printed
        assert each["update"] > 0
        assert each["gradient_start"] > 0
    for path in folder.glob("*.svg"):
        words = [each.strip() for each in ElementTree.parse(path).getroot().itertext()]
        assert {"embedding", "MLM head"} <= set(words)


def test_the_same_run_gives_the_same_bytes(finished_run):
    def contents():
        diagnose(load_run(finished_run), num_batches=1)
        return {path.name: path.read_bytes() for path in (finished_run / DIAGNOSIS).iterdir()}

    assert contents() == contents()


def test_a_failure_leaves_the_older_diagnosis_whole(finished_run, monkeypatch):
    diagnose(load_run(finished_run), num_batches=1)
    before = {path: path.read_bytes() for path in (finished_run / DIAGNOSIS).iterdir()}

    def fail(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(module, "to_svg", fail)
    with pytest.raises(RuntimeError):
        diagnose(load_run(finished_run), num_batches=2)
    assert {path: path.read_bytes() for path in (finished_run / DIAGNOSIS).iterdir()} == before
    assert not list(finished_run.glob(f".{DIAGNOSIS}*"))


def test_a_start_that_is_gone_is_replaced_by_the_first_kept_model(finished_run):
    run = load_run(finished_run)
    gone = replace(run.recipe, model=replace(run.recipe.model, init="gone"))
    figures = diagnose(replace(run, recipe=gone), num_batches=1)
    assert figures["start"] == "pretrained"
    models = [load_model(finished_run / "fold-0" / name) for name in ("pretrained", "finetuned")]
    updates = relative_updates(*models)
    assert {each["name"]: each["update"] for each in figures["parts"]} == updates
    only_one = replace(gone, finetune=replace(gone.finetune, num_train_epochs=0))
    with pytest.raises(UserError, match="gone: the checkpoint that the run began with is not"):
        diagnose(replace(run, recipe=only_one))


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "no run" in capsys.readouterr().err


def test_no_batches_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["diagnose", "x", "--batches", "0"])
    assert "expected 1 or more, got 0" in capsys.readouterr().err


def test_an_update_is_the_change_over_the_size(tiny_model):
    changed = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in changed.encoder.layers[1].parameters():
            parameter *= 1.25
    updates = relative_updates(tiny_model, changed)
    assert updates == pytest.approx({"embedding": 0, "layer 1": 0, "layer 2": 0.25, "MLM head": 0})


def test_gradient_norms_are_those_of_the_joint_loss(tiny_model, batch):
    found = gradient_norms(tiny_model, [batch, batch], label_weight=2.0)
    output = tiny_model(**{name: batch[name] for name in list(batch)[:3]})
    joint_objective(tiny_model, 2.0)(output, batch).backward()
    expected = torch.nn.utils.get_total_norm(
        [each.grad for each in tiny_model.encoder.layers[0].parameters()]
    )
    assert list(found) == PARTS
    assert found["layer 1"] == pytest.approx(expected.item(), rel=1e-5)


def test_the_last_scale_is_the_encoders_own(tiny_model):
    grown = copy.deepcopy(tiny_model)
    with torch.no_grad():
        grown.encoder.layers[1].feed_forward_norm.weight.fill_(-1.5)
        grown.mlm_head.norm.weight.fill_(9.0)
    norms = norm_scales(tiny_model, grown)
    assert [each["name"] for each in norms] == NORMS
    assert [each["end"] for each in norms] == [1, 1, 1, 1, 1.5, 9]
    assert last_scale_ratio(norms) == 1.5


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"norm": "pre"}, [*PARTS[:3], "final norm", "MLM head"]),
        ({"head": "classifier", "mlm_head_dense": False}, [*PARTS, "pair head"]),
    ],
)
def test_every_architecture_has_its_parts(batch, changes, parts):
    config = MatchConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, intermediate_size=32,
                         num_attention_heads=2, max_position_embeddings=8, **changes)  # fmt: skip
    model = MatchForPairs(config)
    lines = part_figures(model, copy.deepcopy(model), [batch], label_weight=1.0)
    assert [each["name"] for each in lines] == parts
    updates = {each["name"]: each["update"] for each in lines}
    if not config.mlm_head_dense:
        assert updates.pop("MLM head") is None  # its bias alone, which starts at 0
    np.testing.assert_array_equal(list(updates.values()), 0)
