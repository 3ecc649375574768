from __future__ import annotations

import re

import pytest

from desmatch.console import describe_tuning
from desmatch.recipe_file import load_recipe
from desmatch.runs import read_json
from desmatch.tune.outcome import conclude, study_figures
from desmatch.tune.ranges import Choices, Span
from desmatch.tune.space import recipe_of
from desmatch.tune.study import ranked, run_study
from tests.tune.conftest import FakeWork, by_rate, changed, search_in


@pytest.fixture(scope="module")
def concluded(sample_folder, tmp_path_factory):
    """A search of eight trials, its study, what was done, and the figures on its page."""
    search = search_in(tmp_path_factory.mktemp("tune") / "study", sample_folder)
    search, fake = changed(search, num_trials=8), FakeWork(by_rate)
    study = run_study(search, fake.work())
    return search, study, fake, conclude(search, study, fake.work())


def test_the_best_recipe_is_that_of_the_best_trial(concluded):
    search, study, fake, figures = concluded
    best = max(study.get_trials(), key=lambda each: each.value or 0)
    assert figures["best"]["number"] == best.number
    assert fake.published == [f"{best.number:04d}"]
    recipe = load_recipe(search.folder / "best.yaml")
    assert recipe == recipe_of(search.start.recipe, best.params, "best")
    own = study.get_trials()[0].value
    assert figures["best"]["against_own"] == pytest.approx(best.value - own)
    assert "so it flatters" in (search.folder / "best.yaml").read_text()


def test_what_decides_the_auc_is_what_is_important(concluded):
    *_, figures = concluded
    shares = figures["importance"]["shares"]
    assert next(iter(shares)) == "finetune.learning_rate"
    assert sum(shares.values()) == pytest.approx(1)
    assert "fewer than 20" in figures["importance"]["note"]


def test_the_page_shows_every_trial_and_loads_nothing(concluded):
    search, study, _, figures = concluded
    page = (search.folder / "report.html").read_text()
    found = read_json(search.folder / "report.json")
    assert {key: found[key] for key in figures} == figures
    assert set(found["figures"]) == {"course", "importance", "value-0", "value-1", "value-2"}
    assert f"<strong>{figures['best']['auc']:.4f}</strong>" in page
    assert "on the same held-out rows, so it flatters" in page
    assert "validation.split_seed 1" in page
    assert page.count("own values</small>") == 1
    rows = page.split('<section id="trials">')[1].split("</section>")[0]
    assert len(re.findall("<tr><th", rows)) == 1 + len(study.get_trials())
    for trial in study.get_trials():
        assert f"{trial.params['finetune.learning_rate']:.4g}" in rows
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)


def test_minutes_and_states_of_trials_are_told(concluded):
    search, study, _, figures = concluded
    assert {each["minutes"] for each in figures["trials"]} == {1.5}
    pruned = [each for each in figures["trials"] if each["state"] == "pruned"]
    assert all(0 < each["folds"] < 3 for each in pruned)
    assert figures["counts"]["finished"] == len(ranked(study))
    assert sum(figures["counts"].values()) == 8
    said = describe_tuning(search.folder, figures)
    assert f"best AUC: {figures['best']['auc']:.4f}" in said
    assert "it flatters" in said
    assert "importance: finetune.learning_rate" in said


def test_few_trials_say_nothing_of_importance(search):
    search = changed(search, num_trials=2, space={"finetune.layer_decay": Span(0.5, 0.9)})
    study = run_study(search, FakeWork(lambda *_: 0.7).work())
    figures = study_figures(search, study)
    assert figures["importance"]["shares"] is None
    assert "2 finished trials say nothing" in figures["importance"]["note"]
    assert not figures["begins_with_own_values"]
    assert figures["best"]["against_own"] is None


def test_trials_of_one_auc_say_nothing_of_importance(search):
    search = changed(search, space={"finetune.keep": Choices(("best", "last"))})
    study = run_study(search, FakeWork(lambda *_: 0.7).work())
    figures = study_figures(search, study)
    assert figures["importance"] == {
        "shares": None,
        "note": "all finished trials have the same AUC",
    }


def test_a_search_without_a_finished_trial_has_a_page_and_no_recipe(search):
    search = changed(search, minutes=1.0, num_trials=None)
    fake = FakeWork(by_rate)
    now = iter([0.0, 0.0, 0.0, *[0.0] * 2, *[90.0] * 99])
    study = run_study(search, fake.work(), lambda: next(now))
    figures = conclude(search, study, fake.work())
    assert figures["best"] is None
    assert not (search.folder / "best.yaml").exists()
    assert "No finished trial yet" in (search.folder / "report.html").read_text()
    assert fake.published == []
