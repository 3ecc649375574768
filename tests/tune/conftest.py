from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sqlalchemy import Engine, event

from desmatch.intake import find_sources
from desmatch.recipe import Recipe, ValidationConfig
from desmatch.runs import write_json
from desmatch.stages import STAGE_LOG, Run
from desmatch.tune.ranges import Choices, Span
from desmatch.tune.study import Search
from desmatch.tune.trials import Work

FOLDS = 3


class FakeWork:
    """Folds whose AUC is a function of the trial's values, and what was asked for.

    The positive rows score `quality` of the way above the negative ones, so that the AUC grows
    with it and is known.
    """

    def __init__(self, quality):
        self.quality = quality
        self.trained: list[tuple[str, int]] = []
        self.finished: list[str] = []
        self.published: list[str] = []
        self.stop_at: int | None = None

    def train(self, run, fold):
        if self.stop_at is not None and len(self.trained) >= self.stop_at:
            self.stop_at = None
            raise KeyboardInterrupt
        self.trained.append((run.folder.name, fold))
        (run.folder / f"fold-{fold}").mkdir(parents=True, exist_ok=True)
        write_json(run.folder / STAGE_LOG, {"fold-0/finetune": {"minutes": 1.5}})
        return rows_of_quality(self.quality(run.recipe, fold))

    def work(self):
        return Work(
            prepare=lambda run: run.folder.mkdir(parents=True, exist_ok=True),
            train=self.train,
            finish=lambda run: self.finished.append(run.folder.name),
            publish=lambda run: self.published.append(run.folder.name),
        )


def rows_of_quality(quality):
    """100 rows whose AUC is `quality`, a number of hundredths or so: 10 positive, 90 negative."""
    labels = np.repeat([0, 1], [90, 10])
    negative = np.arange(90) / 90
    return {"label": labels, "honest_score": np.r_[negative, np.full(10, quality - 1e-9)]}


SPACE = {
    "finetune.learning_rate": Span(1e-5, 1e-3, log=True),
    "finetune.num_train_epochs": Span(1, 5),
    "finetune.adversarial.kind": Choices(("none", "fgm")),
}


@pytest.fixture(autouse=True, scope="session")
def _quick_database():
    """SQLite need not wait for the disk here."""

    def hurry(connection, _):
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture
def search(sample_folder, tmp_path):
    """Of a recipe with three folds; nothing of it is trained where FakeWork does the work."""
    return search_in(tmp_path / "study", sample_folder)


def search_in(folder, data):
    recipe = Recipe(validation=ValidationConfig(num_folds=FOLDS, folds="all"))
    run = Run(folder / "start", recipe, find_sources(data), "fake")
    return Search(run, SPACE, folder, num_trials=4)


def changed(search, **changes):
    return dataclasses.replace(search, **changes)


class Seconds:
    """A clock that goes on by a fixed step whenever it is read."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def by_rate(recipe, fold):
    """The larger the rate the better, up to 0.95; folds differ a little."""
    place = (np.log10(recipe.finetune.learning_rate) + 5) / 2
    return 0.6 + 0.35 * place - 0.01 * fold


def trials_of(study):
    return [
        (each.number, each.state.name, each.params, each.intermediate_values)
        for each in study.get_trials()
    ]
