"""What came out of a study: its figures, the best recipe, and the page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from desmatch.recipe_file import recipe_to_differences
from desmatch.report.tuning import write_tuning
from desmatch.runs import generator, write_text
from desmatch.tune.space import space_to_json
from desmatch.tune.study import HAS_OWN, MINUTES, REASON, ranked, values_text
from desmatch.tune.trials import WORK, trial_folder, trial_minutes, trial_run

if TYPE_CHECKING:
    import optuna

    from desmatch.tune.study import Search
    from desmatch.tune.trials import Work

BEST = "best.yaml"
LEAST_FOR_IMPORTANCE = 4
"""Finished trials without which nothing is said of importance."""
ENOUGH_FOR_IMPORTANCE = 20
"""Below this the page says that it is rough."""


def conclude(search: Search, study: optuna.Study, work: Work = WORK) -> dict[str, Any]:
    """Write best.yaml and the page of a study, and make its best trial's run whole.

    Returns:
        The figures on the page.
    """
    best = next(iter(ranked(study)), None)
    figures = study_figures(search, study)
    if best is not None:
        run = trial_run(search.start, search.folder, best.number, best.params)
        work.publish(run)
        head = (
            f"# Of trial {best.number} of a search: {values_text(best.params)}.\n"
            f"# Its AUC over the held-out rows, {best.value:.4f}, is the greatest of "
            f"{figures['counts']['finished']} on the same rows, so it flatters;\n"
            "# run it with another validation.split_seed for a figure to believe.\n"
        )
        body = yaml.safe_dump(recipe_to_differences(run.recipe), sort_keys=False)
        write_text(search.folder / BEST, head + body)
    write_tuning(search.folder, figures)
    return figures


def study_figures(search: Search, study: optuna.Study) -> dict[str, Any]:
    """Return every figure of a study, as JSON holds it."""
    trials = [_trial_figures(search, each) for each in study.get_trials(deepcopy=False)
              if each.state.name in STATES]  # fmt: skip
    has_own = bool(study.user_attrs.get(HAS_OWN))
    best = next(iter(ranked(study)), None)
    return {
        "recipe_name": search.start.recipe_name,
        "command": search.start.command,
        "seed": search.start.recipe.seed,
        "folds": [*search.folds],
        "num_folds": search.start.recipe.validation.num_folds,
        "minutes": study.user_attrs.get(MINUTES, 0.0),
        "budget": search.minutes,
        "space": space_to_json(search.space),
        "counts": {state: sum(each["state"] == state for each in trials)
                   for state in STATES.values()},
        "begins_with_own_values": has_own,
        "best": None if best is None else {
            "number": best.number,
            "auc": best.value,
            "values": dict(best.params),
            "against_own": _against_own(trials, best) if has_own else None,
        },
        "importance": importance(search, study),
        "trials": trials,
    }  # fmt: skip


STATES = {
    "COMPLETE": "finished",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "unfinished",
}
"""optuna's names of states to ours."""


def _trial_figures(search: Search, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    so_far = trial.intermediate_values
    return {
        "number": trial.number,
        "state": STATES[trial.state.name],
        "auc": so_far[max(so_far)] if so_far else None,
        "folds": len(so_far),
        "minutes": trial_minutes(search.folder, trial.number),
        "values": dict(trial.params),
        "reason": trial.user_attrs.get(REASON, ""),
        "folder": trial_folder(search.folder, trial.number).relative_to(search.folder).as_posix(),
    }


def _against_own(trials: list[dict[str, Any]], best: optuna.trial.FrozenTrial) -> float | None:
    """Return what the best trial gains over the recipe's own values, those of trial 0."""
    own = trials[0]
    return None if own["state"] != "finished" else float(best.value or 0.0) - own["auc"]


def importance(search: Search, study: optuna.Study) -> dict[str, Any]:
    """Return what share of the AUC's variance over the space each key explains, by fANOVA.

    Hutter, Hoos, Leyton-Brown (2014), "An efficient approach for assessing hyperparameter
    importance": a random forest is fitted to the finished trials, and its variance parted by key.

    Returns:
        `shares`, key to a number, their sum 1, the greatest first, or none; and a `note`.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    finished = ranked(study)
    aucs = [float(each.value or 0.0) for each in finished]
    if len(finished) < LEAST_FOR_IMPORTANCE:
        return {"shares": None, "note": f"{len(finished)} finished trials say nothing of it; "
                f"{LEAST_FOR_IMPORTANCE} or more are needed"}  # fmt: skip
    if np.ptp(aucs) == 0:
        return {"shares": None, "note": "all finished trials have the same AUC"}
    seed = int(generator(search.start.recipe.seed, "importance").integers(2**32))
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    if not shares or not all(map(math.isfinite, shares.values())):
        return {"shares": None, "note": "the finished trials do not tell the keys apart"}
    note = f"by fANOVA from {len(finished)} finished trials"
    if len(finished) < ENOUGH_FOR_IMPORTANCE:
        note += f"; fewer than {ENOUGH_FOR_IMPORTANCE} give no more than a hint"
    return {"shares": {key: float(share) for key, share in shares.items()}, "note": note}
