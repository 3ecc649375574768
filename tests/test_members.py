"""An ensemble of two runs that differ in vocabulary and seed, from the command to the scores."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from scipy.special import expit, logit

from desmatch.cli import main
from desmatch.data.read import column
from desmatch.ensemble.combine import LogitWeights, Views, combine_out_of_fold
from desmatch.ensemble.lexical import count_texts
from desmatch.ensemble.rules import GREEDY, RULES
from desmatch.ensemble.selection import selection_gain
from desmatch.ensemble.stacking import stacking_features
from desmatch.ensemble.standings import OutOfFold, best_member, standings
from desmatch.errors import UserError
from desmatch.intake import find_sources
from desmatch.ledger import read_runs
from desmatch.matcher import PairMatcher
from desmatch.members import load_rule, read_held_out
from desmatch.metrics.roc import roc_auc
from desmatch.pipeline import ACTS, execute
from desmatch.recipe import EnsembleConfig, PredictConfig
from desmatch.recipe_file import load_recipe, recipe_path
from desmatch.runs import read_json
from desmatch.stages import Run, load_run
from desmatch.train.trainer import StageTrainer

MEMBERS = {"first": {}, "other": {"data.min_count": 20, "data.rare": "placeholder", "seed": 3}}


def words(sample_folder, out, options, *more):
    """The command that makes the ensemble."""
    return ["run", "--recipe", str(out.parent / "two.yaml"), "--data", str(sample_folder),
            "--out", str(out), *options, "--validation.random_share=0.1", *more]  # fmt: skip


def write_recipe(folder, members=MEMBERS):
    demo = yaml.safe_load(recipe_path("demo").read_text())
    (folder / "two.yaml").write_text(yaml.safe_dump({**demo, "members": members}))


@pytest.fixture(scope="module")
def ensemble(sample_folder, tmp_path_factory, tiny_options):
    """The folder of a run of two members, by logit weights."""
    folder = tmp_path_factory.mktemp("ensemble")
    write_recipe(folder)
    combine = "--ensemble.combine=logit-weights"
    assert main(words(sample_folder, folder / "run", tiny_options, combine)) == 0
    return folder / "run"


@pytest.fixture
def without_report(monkeypatch):
    """Pages take longer than the rest of a tiny run."""
    monkeypatch.setitem(ACTS, "report", lambda _run, _stage: None)


def table(run, name="validation"):
    return pq.read_table(run / "predictions" / f"{name}.parquet")


def values(run, name, of="validation"):
    """(M, B), a column of each member's predictions."""
    return np.stack([table(run / "members" / each, of)[name].to_numpy() for each in MEMBERS])


def contents(folder):
    """Bytes and times of all files of stages that finish."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kept = [path for path in files if any((each / "stage.json").is_file() for each in path.parents)]
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in kept}


def test_members_are_whole_runs_of_the_same_folds(ensemble):
    first, other = (load_run(ensemble / "members" / name) for name in MEMBERS)
    assert first.recipe.seed == 0
    assert other.recipe.seed == 3
    assert other.recipe.data.min_count == 20
    assert not first.recipe.members
    for name in ("fold", "group"):
        columns = [run.prepared.train_column(name) for run in (first, other)]
        np.testing.assert_array_equal(*columns)
    assert len(first.prepared.vocabulary.ids) != len(other.prepared.vocabulary.ids)
    for run in (first, other):
        assert (run.folder / "submission" / "result.tsv").is_file()
        assert (run.folder / "report.html").is_file()
        assert read_json(run.folder / "card.json")["recipe"]["members"] == {}
    assert main(["report", str(first.folder), str(other.folder), "--out",
                 str(ensemble.parent / "both.html")]) == 0  # fmt: skip


def test_the_ensemble_trains_nothing_itself(ensemble):
    assert not list(ensemble.glob("fold-*"))
    card = read_json(ensemble / "card.json")
    own = [read_json(ensemble / "members" / name / "card.json") for name in MEMBERS]
    assert card["minutes"] == pytest.approx(
        sum(card["minutes_by_stage"].values()) + sum(each["minutes"] for each in own), abs=0.02
    )
    assert list(card["minutes_by_stage"]) == ["prepare", "predict", "evaluate"]
    assert card["members"]["other"]["differences"] == MEMBERS["other"]
    assert "2 members (first, other), without fold 0: whole runs" in card["models"]["note"]


def test_a_score_is_the_fitted_rule_of_the_members_scores(ensemble):
    labels = table(ensemble)["label"].to_numpy()
    honest = logit(values(ensemble, "honest_score"))
    rule = LogitWeights().fit(Views(honest), labels)
    assert load_rule(ensemble) == rule
    for name in ("validation", "test", "random"):
        found = table(ensemble, name)
        scores = expit(rule.apply(Views(logit(values(ensemble, "score", name)))))
        np.testing.assert_allclose(found["score"], scores, rtol=1e-9)
        for order in ("logit_forward", "logit_backward"):
            logits = rule.apply(Views(values(ensemble, order, name)))
            np.testing.assert_allclose(found[order], logits, rtol=1e-12)
    lines = (ensemble / "submission" / "result.tsv").read_text().split()
    np.testing.assert_allclose([float(line) for line in lines], scores_of_test(ensemble), rtol=1e-8)


def scores_of_test(run):
    return table(run, "test")["score"].to_numpy()


def test_predictions_have_the_columns_of_any_run(ensemble):
    for name in ("validation", "test", "random"):
        one = table(ensemble / "members" / "first", name)
        both = table(ensemble, name)
        assert both.schema.equals(one.schema)
        scored = {"logit_forward", "logit_backward", "score", "honest_score", "weight"}
        for known in set(one.column_names) - scored:
            assert both[known].equals(one[known]), known
    weights = load_run(ensemble).prepared.train_column("weight")
    np.testing.assert_array_equal(table(ensemble)["weight"], weights[table(ensemble)["row"]])


def test_what_follows_from_labels_is_added_once_and_to_the_ensemble_alone(ensemble, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(ensemble, out)
    before = contents(out / "members")
    recipe = dataclasses.replace(load_run(out).recipe, predict=PredictConfig(closure=True))
    execute(dataclasses.replace(load_run(out), recipe=recipe), only="predict")
    assert contents(out / "members") == before
    figures = read_json(out / "predictions" / "closure.json")
    assert figures["answered_test_rows"] > 0
    change = logit(scores_of_test(out)) - logit(scores_of_test(ensemble))
    is_moved = np.abs(change) > 1e-9
    assert is_moved.sum() == figures["answered_test_rows"]
    is_ratio = np.isclose(change[is_moved][:, None], figures["log_likelihood_ratios"])
    assert is_ratio.any(axis=1).all()


def test_no_label_has_a_say_in_its_own_honest_score(ensemble):
    run = load_run(ensemble)
    held_out = read_held_out(run.member_predictions, run.recipe)
    oof = held_out.oof
    assert len(np.unique(oof.folds)) > 1
    for group in np.unique(oof.groups):
        assert len(np.unique(oof.folds[oof.groups == group])) == 1
    expected = combine_out_of_fold(LogitWeights(), oof.views, oof.labels, oof.folds).logits
    np.testing.assert_allclose(table(ensemble)["honest_score"], expit(expected), rtol=1e-12)
    here = oof.folds == oof.folds[0]
    flipped = np.where(here, 1 - oof.labels, oof.labels)
    again = combine_out_of_fold(LogitWeights(), oof.views, flipped, oof.folds).logits
    np.testing.assert_array_equal(again[here], expected[here])


def test_standings_are_those_of_the_library(ensemble):
    run = load_run(ensemble)
    metrics = read_json(ensemble / "metrics" / "metrics.json")
    found = table(ensemble)
    prepared, rows = run.prepared, found["row"].to_numpy()
    sides = [column(prepared.rows[role], side)
             for role in ("train", "test", "unlabeled") for side in ("a", "b")]  # fmt: skip
    features = stacking_features(
        sides[0].take(rows), sides[1].take(rows), prepared.vocabulary, count_texts(*sides),
        prepared.id_counts,
    )  # fmt: skip
    oof = OutOfFold(
        tuple(MEMBERS),
        Views(logit(values(ensemble, "honest_score")), np.stack([*features.values()])),
        found["label"].to_numpy(),
        read_held_out(run.member_predictions, run.recipe).oof.folds,
        found["group"].to_numpy(),
    )
    expected = standings(oof, RULES, seed=0, num_samples=100)
    assert [line["name"] for line in metrics["standings"]] == [*MEMBERS, *RULES]
    for line, known in zip(metrics["standings"], expected, strict=True):
        for name, value in known._asdict().items():
            same = value if isinstance(value, str) else pytest.approx(value, rel=1e-9)
            given = tuple(line[name]) if isinstance(value, tuple) else line[name]
            assert given == same, (line["name"], name)
    for name, line in zip(MEMBERS, metrics["standings"], strict=False):
        card = read_json(ensemble / "members" / name / "card.json")
        assert line["auc"] == pytest.approx(card["validation"]["auc"], rel=1e-12)
    best = metrics["standings"][best_member(oof)]
    assert best["difference"] == 0
    gain = selection_gain(GREEDY, oof, seed=0, num_samples=100)
    assert metrics["selection"]["honest_gain"] == pytest.approx(gain.honest_gain)
    assert sum(metrics["selection"]["shares"].values()) == pytest.approx(1)
    honest = found["honest_score"].to_numpy()
    assert metrics["auc"] == pytest.approx(roc_auc(oof.labels, honest))


def test_the_matcher_and_predict_give_the_scores_of_the_run(ensemble, sample_folder, tmp_path):
    test = sample_folder / "test.tsv"
    pairs = [tuple(line.split("\t")) for line in test.read_text().splitlines()]
    matcher = PairMatcher.from_pretrained(ensemble)
    found = table(ensemble, "test")
    np.testing.assert_allclose(matcher.predict_proba(pairs)[:, 1], found["score"], rtol=1e-9)
    logits = matcher.decision_function(pairs)
    np.testing.assert_allclose(logits.backward, found["logit_backward"], rtol=1e-9, atol=1e-12)
    with pytest.raises(UserError, match="pair 1: a text is empty"):
        matcher.predict([("", "1")])
    out = tmp_path / "scores.tsv"
    words = ["predict", str(ensemble), "--test", str(test), "--out"]
    assert main([*words, str(out)]) == 0
    assert out.read_text() == (ensemble / "submission" / "result.tsv").read_text()
    assert main([*words, str(tmp_path / "cut.parquet"), "--chunk-rows", "7"]) == 0
    cut = pq.read_table(tmp_path / "cut.parquet")
    for name in ("score", "logit_forward", "logit_backward"):
        np.testing.assert_allclose(cut[name], found[name], rtol=0, atol=1e-6)


@pytest.mark.usefixtures("without_report")
def test_finished_members_are_used_again_when_one_is_added_and_one_left_out(
    ensemble, sample_folder, tmp_path, tiny_options
):
    out = tmp_path / "run"
    shutil.copytree(ensemble, out)
    before = contents(out / "members")
    third = {"other": MEMBERS["other"], "third": {"model.position": "rotary"}}
    write_recipe(tmp_path, third)
    assert main(words(sample_folder, out, tiny_options)) == 0
    after = contents(out / "members")
    assert {path: each for path, each in after.items() if path in before} == before
    assert (out / "members" / "third" / "submission" / "result.tsv").is_file()
    assert read_json(out / "predictions" / "combination.json")["members"] == [*third]
    scores = [table(out / "members" / name, "test")["score"].to_numpy() for name in third]
    np.testing.assert_allclose(scores_of_test(out), np.mean(scores, axis=0), rtol=1e-12)


@pytest.mark.parametrize("combine", ["rank-mean", "stacking"])
def test_a_rule_that_scores_no_single_pairs_says_so(
    ensemble, sample_folder, tmp_path, capsys, combine
):
    out = tmp_path / "run"
    shutil.copytree(ensemble, out)
    before = contents(out / "members")
    recipe = dataclasses.replace(load_run(out).recipe, ensemble=EnsembleConfig(combine=combine))
    execute(dataclasses.replace(load_run(out), recipe=recipe), only="predict")
    assert contents(out / "members") == before
    assert set(table(out).column_names) == set(table(ensemble).column_names)
    assert not np.allclose(scores_of_test(out), scores_of_test(ensemble))
    with pytest.raises(UserError, match=f"combined by {combine}, which scores the run's test as"):
        PairMatcher.from_pretrained(out)
    test = str(sample_folder / "test.tsv")
    assert main(["predict", str(out), "--test", test, "--out", str(tmp_path / "x.tsv")]) == 2
    assert "--ensemble.combine logit-weights or probability-mean" in capsys.readouterr().err


@pytest.mark.usefixtures("without_report")
def test_a_run_killed_in_its_second_member_resumes_to_the_same_bytes(
    ensemble, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    recipe = load_run(ensemble).recipe
    run = Run(out, recipe, load_run(ensemble).sources)
    step = StageTrainer.training_step

    def stumbling(self, *args, **kwargs):
        if "other/fold-0/.finetuned" in self.args.output_dir and self.state.global_step == 10:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "training_step", stumbling)
        with pytest.raises(KeyboardInterrupt):
            execute(run)
    assert list(out.glob("members/other/fold-0/.finetuned.making/checkpoint-*"))
    assert read_runs(tmp_path)[0].state == "members/other/fold-0/finetuned unfinished"
    first = contents(out / "members" / "first")
    execute(dataclasses.replace(run, may_resume=True))
    assert contents(out / "members" / "first") == first
    bytes_of = [{path: data for path, (data, _) in contents(each / "predictions").items()}
                for each in (ensemble, out)]  # fmt: skip
    assert bytes_of[0] == bytes_of[1]
    names = ["submission/result.tsv", "metrics/metrics.json"]
    for name in names:
        assert (ensemble / name).read_bytes() == (out / name).read_bytes()
    (entry,) = read_runs(tmp_path)
    card = read_json(out / "card.json")
    assert (entry.state, entry.minutes) == ("finished", card["minutes"])
    assert any(each.startswith("member other: finetune was resumed") for each in card["warnings"])


def test_export_and_diagnose_need_a_member(ensemble, tmp_path, capsys):
    out = str(tmp_path / "plain")
    assert main(["export", str(ensemble), "--out", out]) == 2
    assert "name a member with --member: first, other" in capsys.readouterr().err
    assert main(["diagnose", str(ensemble), "--member", "ohter"]) == 2
    assert "--member ohter: no such member; did you mean 'other'?" in capsys.readouterr().err
    assert main(["export", str(ensemble / "members" / "first"), "--out", out, "--member", "x"]) == 2
    assert "is no ensemble; leave the option out" in capsys.readouterr().err
    assert main(["export", str(ensemble), "--out", out, "--member", "other"]) == 0
    assert main(["diagnose", str(ensemble), "--member", "other", "--batches", "1"]) == 0
    assert (ensemble / "members" / "other" / "diagnosis").is_dir()


def test_members_of_other_rows_are_refused(ensemble, tmp_path):
    run = load_run(ensemble)
    other = tmp_path / "other" / "predictions"
    shutil.copytree(run.member_predictions["other"], other)
    path = other / "validation.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    members = {**run.member_predictions, "other": other}
    with pytest.raises(UserError, match="of other held-out rows than those of the first member"):
        read_held_out(members, run.recipe)


def test_the_digest_of_the_ensemble_holds_those_of_its_members(ensemble):
    run = load_run(ensemble)
    members = {**run.recipe.members, "other": {**MEMBERS["other"], "finetune.batch_size": 8}}
    changed = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, members=members))
    assert run.digest("prepared") == changed.digest("prepared")
    assert run.digest("predictions") != changed.digest("predictions")
    assert run.members["first"].digest("report.html") == changed.members["first"].digest(
        "report.html"
    )
    turned = dict(reversed(run.recipe.members.items()))
    other = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, members=turned))
    assert run.digest("predictions") != other.digest("predictions")


def test_the_members_of_the_bundled_recipe_start_where_they_are_told(sample_folder, monkeypatch):
    monkeypatch.setattr(Run, "_init_digests", ["a checkpoint's"])
    recipe = load_recipe(recipe_path("champion"), ["--model.init=here"])
    run = Run(Path("run"), recipe, find_sources(sample_folder))
    assert {member.recipe.model.init for member in run.members.values()} == {"here"}
    shared = {member.digest("mlm") for member in run.members.values()}
    assert len(shared) == len(run.members)  # members that share masked tokens say the same things
    strong = load_recipe(recipe_path("strong"), ["--model.init=here", "--validation.split_seed=0"])
    own = dataclasses.replace(run, recipe=strong)
    moved = dataclasses.replace(own.recipe.model, init="there")
    elsewhere = dataclasses.replace(own, recipe=dataclasses.replace(own.recipe, model=moved))
    for stage in ("mlm", "finetuned"):
        assert run.members["tokens"].digest(stage) == own.digest(stage) == elsewhere.digest(stage)
