"""One trial: a run of the recipe with other values, trained fold by fold.

Shapes: B held-out rows.
"""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from desmatch.errors import UserError
from desmatch.metrics.roc import roc_auc
from desmatch.pipeline import execute, execute_fold
from desmatch.predict import score_held_out
from desmatch.stages import read_stage_log
from desmatch.tune.space import recipe_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.stages import Run
    from desmatch.tune.ranges import Value

START, TRIALS = "start", "trials"
"""Folders of a study: of the recipe as it was given, with its data, and of the trials."""

Columns = dict[str, "NDArray[Any]"]


class Work(NamedTuple):
    """What is done for a trial; tests put a quick function in the place of a training.

    Attributes:
        prepare: Reads and splits the data of the recipe as it was given.
        train: Trains one fold of a run; returns `label` and `honest_score`, (B,), of its rows.
        finish: Makes an ordinary run of one whose folds are trained, its page left out.
        publish: Writes the page too.
    """

    prepare: Callable[[Run], None]
    train: Callable[[Run, int], Columns]
    finish: Callable[[Run], None]
    publish: Callable[[Run], None]


def _prepare(run: Run) -> None:
    execute(run, only="prepare")


def _train(run: Run, fold: int) -> Columns:
    model = execute_fold(run, fold)
    return score_held_out(run.prepared, run.recipe, fold, model)


def _finish(run: Run) -> None:
    for name in ("predict", "evaluate", "submit"):
        execute(run, only=name)


WORK = Work(_prepare, _train, _finish, execute)


def pooled_auc(folds: Sequence[Mapping[str, NDArray[Any]]]) -> float:
    """Return the AUC over the held-out rows of all folds together, as a run's card has it.

    Args:
        folds: `label` and `honest_score`, (B,), of each fold.

    Raises:
        ValueError: A label is missing or a score is not finite.
    """
    labels, scores = (
        np.concatenate([columns[name] for columns in folds]) for name in ("label", "honest_score")
    )
    return roc_auc(labels, scores)


def trial_folder(folder: Path, number: int) -> Path:
    """Return where a trial of a study lies."""
    return folder / TRIALS / f"{number:04d}"


def trial_run(start: Run, folder: Path, number: int, values: Mapping[str, Value]) -> Run:
    """Return the run of a trial; finished stages of the other trials are taken over.

    Args:
        start: The run of the recipe as it was given.
        folder: Of the study.
        number: Of the trial.
        values: By dotted keys of the recipe.

    Raises:
        UserError: The values do not go together.
    """
    home = trial_folder(folder, number)
    others = sorted(path for path in home.parent.glob("*") if path != home)
    return dataclasses.replace(
        start,
        folder=home,
        recipe=recipe_of(start.recipe, values, f"trial {number}"),
        recipe_name=f"{start.recipe_name}, trial {number}",
        donors=(start.folder, *others),
        say=lambda _: None,
    )


def trial_minutes(folder: Path, number: int) -> float:
    """Return the minutes that a trial's own stages took; none of those that it took over."""
    log = read_stage_log(trial_folder(folder, number))
    return sum(float(each["minutes"]) for each in log.values())


def drop_models(folder: Path, numbers: Sequence[int]) -> None:
    """Remove the models of trials; their predictions and cards stay.

    A model that another trial has taken over stays there: the files are links to the same data.
    """
    for number in numbers:
        home = trial_folder(folder, number)
        for path in (*home.glob("fold-*"), home / "mlm"):
            shutil.rmtree(path, ignore_errors=True)


def require_one_model(start: Run) -> None:
    """Refuse what cannot be searched as one model.

    Raises:
        UserError: The recipe is an ensemble, or several processes are at work.
    """
    from desmatch.train.processes import num_processes

    if start.recipe.members:
        raise UserError(
            "a recipe with members cannot be tuned; tune a member's recipe, and name the best as "
            "a member"
        )
    if num_processes() > 1:
        raise UserError("a study works in one process; start `desmatch tune` without torchrun")
