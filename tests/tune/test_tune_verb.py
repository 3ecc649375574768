"""`desmatch tune` with real, tiny trainings."""

from __future__ import annotations

import json

import pytest

from desmatch.cli import main
from desmatch.train.trainer import StageTrainer

SPACE = """finetune.learning_rate: {low: 1e-4, high: 1e-2, log: true}
finetune.adversarial.kind: [none, fgm]
"""


@pytest.fixture(scope="module")
def tuned(sample_folder, tmp_path_factory, tiny_options):
    """A search that was interrupted in its second trial and gone on with: folder, what trained."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "space.yaml").write_text(SPACE)
    out = folder / "study"
    words = ["tune", "--recipe", "demo", "--data", str(sample_folder), "--out", str(out),
             "--space", str(folder / "space.yaml"), *tiny_options, "--folds", "2",
             "--pretrain.num_evaluations=1", "--finetune.num_evaluations=1",
             "--finetune.num_train_epochs=1", "--trials", "2"]  # fmt: skip
    trained: list[str] = []
    train, step = StageTrainer.train, StageTrainer.training_step

    def watched(self, *args, **kwargs):
        trained.append(self.args.output_dir.removeprefix(f"{out}/trials/"))
        return train(self, *args, **kwargs)

    def stumbling(self, *args, **kwargs):
        if "0001/fold-0/.finetuned" in self.args.output_dir and self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageTrainer, "train", watched)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(StageTrainer, "training_step", stumbling)
            assert main(words) == 130
        assert main([*words, "--resume"]) == 0
    return out, trained, words


def test_the_joint_stage_of_each_fold_is_trained_once(tuned):
    out, trained, _ = tuned
    joint = [path for path in trained if "pretrained" in path]
    assert joint == [f"0000/fold-{fold}/.pretrained.making" for fold in (0, 1)]
    of_labels = [path for path in trained if "finetuned" in path]
    folds = [(number, fold) for number in (0, 1) for fold in (0, 1)]
    expected = [f"000{number}/fold-{fold}/.finetuned.making" for number, fold in folds]
    assert of_labels == [*expected[:3], *expected[2:]]  # the third was interrupted
    weights = "fold-1/pretrained/model.safetensors"
    first, second = (out / "trials" / number / weights for number in ("0000", "0001"))
    assert first.samefile(second)


def test_the_auc_of_a_trial_is_that_of_its_card(tuned):
    out, *_ = tuned
    for trial in json.loads((out / "report.json").read_text())["trials"]:
        card = json.loads((out / trial["folder"] / "card.json").read_text())
        assert card["validation"]["auc"] == trial["auc"]
        assert card["recipe"]["finetune"]["learning_rate"] == pytest.approx(
            trial["values"]["finetune.learning_rate"]
        )


def test_the_best_recipe_runs_and_is_the_best_trials(tuned, sample_folder, capsys):
    out, *_ = tuned
    best = json.loads((out / "report.json").read_text())["best"]
    folder = out / "trials" / f"{best['number']:04d}"
    assert (folder / "report.html").is_file()
    words = ["run", "--recipe", str(out / "best.yaml"), "--data", str(sample_folder)]
    assert main([*words, "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "made again" not in said.replace(f"{folder / 'report.html'} is of", "")
    assert f"finetune: {folder / 'fold-0' / 'finetuned'} still holds, skipped" in said


def test_a_study_whose_budget_is_spent_says_what_it_found(tuned, capsys):
    _, trained, words = tuned
    before = len(trained)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert len(trained) == before
    assert "trials: 2 finished" in said
    assert "it flatters" in said


def test_a_wrong_space_stops_before_anything_is_read(tuned, tmp_path, capsys):
    *_, words = tuned
    path = tmp_path / "space.yaml"
    path.write_text("finetune.learning_rate: {low: 1e-2, high: 1e-4}\n")
    changed = [*words, "--space", str(path), "--out", str(tmp_path / "study")]
    assert main(changed) == 2
    error = capsys.readouterr().err
    assert f"desmatch tune: error: {path}:1: finetune.learning_rate: an empty range" in error
    assert not (tmp_path / "study").exists()
