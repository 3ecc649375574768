from __future__ import annotations

import json
import shutil

import pytest

from desmatch.cli import main
from desmatch.errors import UserError
from desmatch.ledger import claimed_figure, read_run, read_runs
from desmatch.runs import write_json, write_text
from desmatch.stage_table import STAGES


def made_run(folder, auc=None, *, seed=0, done=(), making=()):
    """A run that says of itself what it must, and no more."""
    write_text(folder / "recipe.yaml", f"seed: {seed}\n")
    write_json(folder / "sources.json", {"recipe_name": "demo", "skip_bad": False})
    minutes = {"prepare": 0.25, "fold-0/pretrain": 1.5}
    write_json(folder / "stages.json", {name: {"minutes": each} for name, each in minutes.items()})
    if auc is not None:
        validation = {"auc": auc, "interval": [auc - 0.1, auc + 0.1]}
        card = {"minutes": 2.5, "revision": "0123456789+changes", "validation": validation}
        write_json(folder / "card.json", card)
    for name in done:
        write_json(folder / name / "stage.json", {"digest": ""})
    for name in making:
        (folder / name).mkdir(parents=True)
    return folder


def test_runs_are_listed_by_their_figure_and_the_unfinished_last(tmp_path):
    for name, auc in (("low", 0.6), ("none", None), ("high", 0.9), ("also none", None)):
        made_run(tmp_path / name, auc)
    (tmp_path / "no run").mkdir()
    (tmp_path / "a file").touch()
    entries = read_runs(tmp_path)
    assert [entry.name for entry in entries] == ["high", "low", "also none", "none"]
    assert entries[0].interval == pytest.approx((0.8, 1.0))
    assert entries[0].revision == "0123456+changes"
    assert [entry.minutes for entry in entries] == [2.5, 2.5, 1.75, 1.75]
    assert [entry.state for entry in entries[:3]] == ["finished", "finished", "nothing done"]


@pytest.mark.parametrize(
    ("done", "making", "state"),
    [
        (["prepared"], [], "prepared done"),
        (["prepared", "fold-0/pretrained", "fold-0/finetuned"], [], "fold-0/finetuned done"),
        (["prepared", "fold-0/finetuned", "fold-2/pretrained", "fold-10/pretrained"], [],
         "fold-10/pretrained done"),
        (["prepared", "fold-0/finetuned", "predictions"], [], "predictions done"),
        (["prepared"], ["fold-1/.finetuned.making"], "fold-1/finetuned unfinished"),
        (["prepared", "mlm"], [], "mlm done"),
        (["prepared"], [".pretrained.making"], "pretrained unfinished"),
    ],
)  # fmt: skip
def test_a_run_says_how_far_it_has_come(tmp_path, done, making, state):
    assert read_run(made_run(tmp_path / "run", done=done, making=making)).state == state


def test_the_headline_is_what_a_run_claims():
    old = {"auc": 0.8, "interval": [0.7, 0.9]}
    assert claimed_figure(old) == ("auc", 0.8, (0.7, 0.9))
    random = {**old, "expected_test_auc": 0.85}
    assert claimed_figure(random) == ("expected_test_auc", 0.85, (0.7, 0.9))
    headline = {"name": "weighted_auc", "value": 0.81, "interval": [0.75, 0.88], "why": "drift"}
    assert claimed_figure({**random, "headline": headline}) == ("weighted_auc", 0.81, (0.75, 0.88))
    assert claimed_figure({}) == (None, None, None)


def test_the_verb_prints_a_table_or_json(finished_run, tmp_path, capsys):
    shutil.copytree(finished_run, tmp_path / "whole", ignore=shutil.ignore_patterns("fold-*"))
    made_run(tmp_path / "begun", seed=7)
    assert main(["runs", str(tmp_path)]) == 0
    head, whole, begun = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["run", "recipe", "seed", "AUC"]
    card = json.loads((finished_run / "card.json").read_text())
    name, auc, _ = claimed_figure(card["validation"])
    assert whole.split()[:4] == ["whole", "demo", "0", f"{auc:.4f}"]
    assert name in whole
    assert whole.endswith("finished")
    assert begun.split()[:4] == ["begun", "demo", "7", "-"]
    assert begun.endswith("nothing done")
    assert main(["runs", str(tmp_path), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in entries] == ["whole", "begun"]
    assert entries[0]["auc"] == auc
    assert entries[0]["minutes"] == card["minutes"]


def test_a_folder_without_runs_and_a_run_that_is_broken_are_named(tmp_path, capsys):
    assert main(["runs", str(tmp_path / "none")]) == 2
    assert "none: no run in this folder" in capsys.readouterr().err
    run = made_run(tmp_path / "run")
    (run / "recipe.yaml").write_text("- 3\n")
    with pytest.raises(UserError, match=r"recipe.yaml: no recipe of a run"):
        read_runs(tmp_path)


def test_a_whole_run_is_finished_and_loses_its_last_stages_backwards(finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "card.json").unlink()
    order = ["submission", "metrics", "predictions", "fold-0/finetuned", "fold-0/pretrained",
             "prepared"]  # fmt: skip
    unwanted = {"report.html", "mlm", "soft-labels", "pseudo-labeled"}
    written = {stage.writes for stage in STAGES} - unwanted
    assert {name.rpartition("/")[2] for name in order} == written
    for name in order:
        assert read_run(run).state == f"{name} done"
        shutil.rmtree(run / name)
