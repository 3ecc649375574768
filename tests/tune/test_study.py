from __future__ import annotations

import itertools

import numpy as np
import optuna
import pytest
from sklearn.metrics import roc_auc_score

from desmatch.errors import DivergedError, UserError
from desmatch.recipe import Recipe
from desmatch.tune.ranges import Choices, Span
from desmatch.tune.study import (
    DATABASE,
    KEPT_MODELS,
    MINUTES,
    MOST_FAILURES,
    ranked,
    require_optuna,
    run_study,
)
from desmatch.tune.trials import pooled_auc
from tests.tune.conftest import (
    FOLDS,
    SPACE,
    FakeWork,
    Seconds,
    by_rate,
    changed,
    rows_of_quality,
    trials_of,
)


def test_the_auc_is_that_of_all_rows_of_the_folds_together():
    folds = [rows_of_quality(quality) for quality in (0.7, 0.9)]
    labels, scores = (
        np.concatenate([fold[name] for fold in folds]) for name in ("label", "honest_score")
    )
    assert pooled_auc(folds) == pytest.approx(roc_auc_score(labels, scores))
    assert pooled_auc(folds[:1]) == pytest.approx(0.7)


def test_trials_are_begun_with_the_recipes_own_values_and_trained_fold_by_fold(search):
    fake = FakeWork(by_rate)
    study = run_study(changed(search, num_trials=3), fake.work())
    own = {"finetune.learning_rate": 1e-4, "finetune.num_train_epochs": 1,
           "finetune.adversarial.kind": "none"}  # fmt: skip
    assert study.get_trials()[0].params == own
    assert fake.trained == [*itertools.product(["0000", "0001", "0002"], range(FOLDS))]
    assert fake.finished == ["0000", "0001", "0002"]
    for trial in study.get_trials():
        assert trial.value == trial.intermediate_values[FOLDS - 1]
        assert isinstance(trial.params["finetune.num_train_epochs"], int)
        assert SPACE["finetune.learning_rate"].holds(trial.params["finetune.learning_rate"])


def test_a_trial_below_the_median_is_stopped_after_its_first_fold(search):
    """optuna's median pruner lets five trials finish first."""
    qualities = [0.9, 0.8, 0.85, 0.8, 0.9, 0.6, 0.95, 0.7]
    fake = FakeWork(None)
    fake.quality = lambda _, fold: qualities[int(fake_trial(fake))] - 0.01 * fold
    study = run_study(changed(search, num_trials=8), fake.work())
    states = [each.state.name for each in study.get_trials()]
    assert states == [*["COMPLETE"] * 5, "PRUNED", "COMPLETE", "PRUNED"]
    folds = [len(each.intermediate_values) for each in study.get_trials()]
    assert folds == [FOLDS] * 5 + [1, FOLDS, 1]
    assert fake.finished == ["0000", "0001", "0002", "0003", "0004", "0006"]


def fake_trial(fake):
    return fake.trained[-1][0]


def test_a_trial_is_stopped_between_later_folds(search):
    fake = FakeWork(None)
    good, fading = (0.8, 0.9, 0.9), (0.82, 0.5, 0.9)
    fake.quality = lambda _, fold: (good if int(fake_trial(fake)) < 5 else fading)[fold]
    study = run_study(changed(search, num_trials=6), fake.work())
    last = study.get_trials()[-1]
    assert last.state.name == "PRUNED"
    assert len(last.intermediate_values) == 2


def test_an_interrupted_study_goes_on_to_the_same_trials(search, tmp_path):
    whole = run_study(search, FakeWork(by_rate).work())
    other = changed(search, folder=tmp_path / "other")
    fake = FakeWork(by_rate)
    for stop_at in (0, 1, 6, 10):
        fake.stop_at = stop_at
        with pytest.raises(KeyboardInterrupt):
            run_study(other, fake.work())
    resumed = run_study(other, fake.work())
    assert trials_of(resumed) == trials_of(whole)
    assert [each.state.name for each in resumed.get_trials()] == ["COMPLETE"] * 4


def test_another_seed_gives_other_trials(search, tmp_path):
    whole = run_study(search, FakeWork(by_rate).work())
    recipe = Recipe(seed=1, validation=search.start.recipe.validation)
    other = changed(search, folder=tmp_path / "seed", start=changed(search.start, recipe=recipe))
    rest = run_study(other, FakeWork(by_rate).work())
    assert trials_of(rest)[0] == trials_of(whole)[0]
    assert trials_of(rest)[1:] != trials_of(whole)[1:]


def test_no_fold_is_begun_after_the_time_is_over_and_more_minutes_go_on(search):
    fake = FakeWork(by_rate)
    short = changed(search, minutes=1.0, num_trials=None)
    study = run_study(short, fake.work(), Seconds(4.0))
    first = len(fake.trained)
    assert first > 0
    assert study.user_attrs[MINUTES] >= 1
    again = run_study(short, fake.work(), Seconds(4.0))
    assert trials_of(again) == trials_of(study)
    study = run_study(changed(short, minutes=2.0), fake.work(), Seconds(4.0))
    assert len(fake.trained) > first
    assert study.user_attrs[MINUTES] >= 2
    last = [(number, fold) for number, fold in fake.trained if number == fake.trained[-1][0]]
    assert len(set(last)) == len(study.get_trials()[-1].intermediate_values)


def test_trials_are_counted_over_the_whole_study(search):
    fake = FakeWork(by_rate)
    run_study(changed(search, num_trials=2), fake.work())
    assert len(run_study(changed(search, num_trials=2), fake.work()).get_trials()) == 2
    assert len(run_study(changed(search, num_trials=3), fake.work()).get_trials()) == 3
    assert len(fake.trained) == 3 * FOLDS


def test_the_models_of_the_best_trials_alone_stay(search):
    study = run_study(changed(search, num_trials=5), FakeWork(by_rate).work())
    kept = {path.parent.name for path in search.folder.glob("trials/*/fold-0")}
    assert kept == {f"{each.number:04d}" for each in ranked(study)[:KEPT_MODELS]}
    assert len(list(search.folder.glob("trials/*/stages.json"))) == 5


def test_values_that_do_not_go_together_are_a_trial_without_a_result(search):
    space = {"model.hidden_size": Span(30, 33), "model.num_attention_heads": Choices((2, 5))}
    fake = FakeWork(lambda *_: 0.7)
    study = run_study(changed(search, space=space, num_trials=6), fake.work())
    for trial in study.get_trials():
        width, heads = trial.params.values()
        is_sound = width % heads == 0
        assert trial.state.name == ("COMPLETE" if is_sound else "FAIL")
        assert is_sound or "a multiple of model.num_attention_heads" in trial.user_attrs["reason"]


def test_trainings_that_diverge_are_no_result_and_end_a_study_after_a_while(search):
    def diverge(*_):
        raise DivergedError("what the model says is not finite")

    fake = FakeWork(diverge)
    with pytest.raises(UserError, match=r"the last 5 trials had no result, .*not finite"):
        run_study(changed(search, num_trials=None), fake.work())
    assert len(fake.trained) == MOST_FAILURES


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("space", lambda search, _: changed(search, space={**SPACE, "data.min_count": Span(1, 5)})),
        ("recipe", lambda search, _: changed(
            search, start=changed(search.start, recipe=changed(search.start.recipe, seed=4)))),
        ("data or checkpoint", lambda search, sources: changed(
            search, start=changed(search.start, sources=sources))),
    ],
)  # fmt: skip
def test_a_study_of_something_else_is_refused(search, tmp_path, name, change):
    from desmatch.data.sample import write_sample
    from desmatch.intake import find_sources

    run_study(changed(search, num_trials=1), FakeWork(by_rate).work())
    write_sample(tmp_path / "data", seed=2, num_train=200, num_test=50, num_unlabeled=50)
    other = change(search, find_sources(tmp_path / "data"))
    fake = FakeWork(by_rate)
    with pytest.raises(UserError, match=rf"study\.db: its trials are of another {name}"):
        run_study(other, fake.work())
    assert fake.trained == []


def test_a_file_that_is_no_database_is_refused(search):
    search.folder.mkdir(parents=True)
    (search.folder / DATABASE).write_text("no database")
    with pytest.raises(UserError, match=r"study\.db: no study can be read from it"):
        run_study(search, FakeWork(by_rate).work())


def test_a_recipe_with_members_is_refused(search):
    members = changed(search.start.recipe, members={"a": {}, "b": {"seed": 1}})
    ensemble = changed(search, start=changed(search.start, recipe=members))
    with pytest.raises(UserError, match="a recipe with members cannot be tuned"):
        run_study(ensemble, FakeWork(by_rate).work())
    assert not search.folder.exists()


def test_optuna_is_named_where_it_is_missing(monkeypatch):
    require_optuna()
    monkeypatch.setattr("desmatch.errors.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'desmatch\[tune\]'"):
        require_optuna()


def test_the_study_is_one_of_optunas(search):
    run_study(changed(search, num_trials=2), FakeWork(by_rate).work())
    url = f"sqlite:///{search.folder / DATABASE}"
    study = optuna.load_study(study_name="desmatch", storage=url)
    assert study.best_value == max(each.value for each in study.trials)
