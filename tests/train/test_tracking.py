from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from desmatch.cli import main
from desmatch.errors import UserError
from desmatch.recipe import TrackingConfig
from desmatch.recipe_file import load_recipe, recipe_path, recipe_to_yaml
from desmatch.stages import load_run
from desmatch.train import tracking
from desmatch.train.tracking import end_tracking, require_trackers
from desmatch.train.trainer import StageTrainer


def words(sample_folder, out, options, *more):
    data = str(sample_folder)
    return ["run", "--recipe", "demo", "--data", data, "--out", str(out), *options, *more]


def scalars(folder):
    """Tag to (step, value) pairs of all of TensorBoard's files in a folder."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]}  # fmt: skip


@pytest.fixture(scope="module")
def watched(sample_folder, tmp_path_factory, tiny_options):
    """A run that TensorBoard watches, interrupted in its last stage and resumed."""
    out = tmp_path_factory.mktemp("watched") / "run"
    command = words(sample_folder, out, tiny_options, "--tracking.report_to", "tensorboard")
    step = StageTrainer.training_step

    def stumbling(self, *args, **kwargs):
        if "finetuned" in self.args.output_dir and self.state.global_step == 15:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageTrainer, "training_step", stumbling)
        assert main(command) == 130
    assert main([*command, "--resume"]) == 0
    return out


@pytest.mark.parametrize("stage", ["pretrained", "finetuned"])
def test_tensorboard_is_told_loss_and_auc_of_every_stage(watched, stage):
    found = scalars(watched / "logs" / "fold-0" / stage)
    history = json.loads((watched / "fold-0" / stage / "history.json").read_text())
    for tag, name in (("train/loss", "loss"), ("eval/roc_auc", "roc_auc")):
        expected = [(line["step"], line[name]) for line in history if name in line]
        assert len(expected) >= 2
        assert [step for step, _ in found[tag]] == [step for step, _ in expected]
        assert [value for _, value in found[tag]] == pytest.approx(
            [value for _, value in expected], rel=1e-6
        )


def test_who_watches_does_not_change_the_run(watched, finished_run):
    name = "submission/result.tsv"
    assert (watched / name).read_bytes() == (finished_run / name).read_bytes()
    assert load_run(watched).digest("report.html") == load_run(finished_run).digest("report.html")
    assert not (finished_run / "logs").exists()


@pytest.mark.parametrize(
    ("words", "trackers"),
    [
        ([], ()),
        (["--tracking.report_to=none"], ()),
        (["--tracking.report_to=wandb"], ("wandb",)),
        (["--tracking.report_to", "[tensorboard, mlflow]"], ("tensorboard", "mlflow")),
    ],
)
def test_trackers_are_named_one_or_several(words, trackers, tmp_path):
    recipe = load_recipe(recipe_path("demo"), words)
    assert recipe.tracking.trackers == trackers
    path = tmp_path / "again.yaml"
    path.write_text(recipe_to_yaml(recipe))
    assert load_recipe(path) == recipe


def test_an_unknown_tracker_is_refused():
    with pytest.raises(UserError, match=r"tracking\.report_to"):
        load_recipe(recipe_path("demo"), ["--tracking.report_to=tensorbord"])


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("tensorboard", r"pip install 'desmatch\[tensorboard\]'"),
        ("mlflow", "pip install mlflow"),
        ("wandb", "pip install wandb"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_done(
    name, mend, sample_folder, tmp_path, tiny_options, monkeypatch, capsys
):
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=mend):
        require_trackers(TrackingConfig(report_to=name))
    require_trackers(TrackingConfig())
    option = f"--tracking.report_to={name}"
    assert main(words(sample_folder, tmp_path / "run", tiny_options, option)) == 2
    assert f"{name} is not installed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_of_wandb_ends_with_its_stage(monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(finish=lambda: calls.append(1)))
    end_tracking(TrackingConfig(report_to=("tensorboard", "wandb")))
    end_tracking(TrackingConfig(report_to="mlflow"))
    assert calls == [1]
