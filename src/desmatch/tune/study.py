"""A resumable study: values are suggested by optuna, tried fold by fold, and kept in SQLite."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from desmatch.errors import DivergedError, UserError, require_installed
from desmatch.runs import generator, value_digest
from desmatch.tune.ranges import Choices
from desmatch.tune.space import own_values, space_to_json
from desmatch.tune.trials import (
    WORK,
    drop_models,
    pooled_auc,
    require_one_model,
    trial_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import optuna

    from desmatch.stages import Run
    from desmatch.tune.ranges import Span
    from desmatch.tune.space import Space
    from desmatch.tune.trials import Columns, Work

DATABASE = "study.db"
STUDY = "desmatch"
KEPT_MODELS = 3
"""Trials, the best ones, whose models stay on the disk."""
MOST_FAILURES = 5
"""So many trials without a result, one after the other, end a study."""

MINUTES, REASON, HAS_OWN = "minutes", "reason", "begins_with_own_values"
"""What a study and its trials keep beside what optuna does."""


@dataclass(frozen=True)
class Search:
    """What is searched, and for how long.

    Attributes:
        start: The run of the recipe as it was given, in the folder START of the study.
        space: Keys of the recipe and their ranges.
        folder: Of the study.
        minutes: After which no fold is begun, all commands of the study together; none: no limit.
        num_trials: After which no trial is begun, all commands together; none: no limit.
        say: Takes a line for the user.
    """

    start: Run
    space: Space
    folder: Path
    minutes: float | None = None
    num_trials: int | None = None
    say: Callable[[str], None] = lambda _: None

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that a trial trains, one after the other."""
        return self.start.recipe.validation.trained_folds


class Clock:
    """The minutes that a study has taken, those of earlier commands included."""

    def __init__(self, spent: float, limit: float | None, now: Callable[[], float]) -> None:
        self._spent, self._limit, self._now = spent, limit, now
        self._started = now()

    @property
    def minutes(self) -> float:
        """Spent so far."""
        return self._spent + (self._now() - self._started) / 60

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return self._limit is not None and self.minutes >= self._limit

    def __str__(self) -> str:
        limit = "" if self._limit is None else f" of {self._limit:g}"
        return f"{self.minutes:.1f}{limit} minutes"


def require_optuna() -> None:
    """Look for optuna before anything is done.

    Raises:
        UserError: It is not installed.
    """
    require_installed("tune", "optuna")


def run_study(
    search: Search, work: Work = WORK, now: Callable[[], float] = time.monotonic
) -> optuna.Study:
    """Try values until the budget is spent; a study that is there is gone on with.

    Trial 0 has the recipe's own values where the space holds them. Whatever ends it, the same
    command goes on: with the trial that was at work, from its folder.

    Args:
        search: What is searched.
        work: What is done for a trial.
        now: A clock, in seconds.

    Returns:
        The study.

    Raises:
        UserError: Bad input, or the folder has a study of something else.
    """
    require_one_model(search.start)
    began = now()
    study = _load(search)
    work.prepare(search.start)
    if study is None:
        study = _create(search)
    clock = Clock(study.user_attrs.get(MINUTES, 0.0) + (now() - began) / 60, search.minutes, now)
    try:
        while not clock.is_over:
            trial = _next_trial(study, search)
            if trial is None:
                break
            _try(trial, search, work, clock)
            _drop_models(study, search.folder)
            _require_results(study)
    finally:
        study.set_user_attr(MINUTES, clock.minutes)
    return study


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    import optuna
    from sqlalchemy import URL

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = URL.create("sqlite", database=str(folder / DATABASE)).render_as_string()
    return optuna.storages.RDBStorage(url.replace("{", "{{").replace("}", "}}"))


def _identity(search: Search) -> dict[str, str]:
    """Return digests of what makes two searches the same study, by what the user calls them."""
    start = search.start
    return {
        "space": value_digest(space_to_json(search.space)),
        "recipe": value_digest({**asdict(start.recipe), "tracking": None}),
        "data or checkpoint": value_digest([start.digest("prepared"), start.digest("pretrained")]),
    }


def _load(search: Search) -> optuna.Study | None:
    """Return the study that a folder has, if it has one.

    Raises:
        UserError: It is one of another search.
    """
    import optuna
    from sqlalchemy.exc import DatabaseError

    path = search.folder / DATABASE
    if not path.is_file():
        return None
    try:
        storage = _storage(search.folder)
        if STUDY not in optuna.get_all_study_names(storage):
            return None
        study = optuna.load_study(study_name=STUDY, storage=storage, pruner=_pruner())
        attributes = study.user_attrs
    except (DatabaseError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: no study can be read from it ({reason}); give another --out, or "
                        "delete the file to begin again") from None  # fmt: skip
    if not attributes:  # it was cut off while it was made
        return None
    for name, digest in _identity(search).items():
        if attributes.get(name) != digest:
            raise UserError(f"{path}: its trials are of another {name}, and do not compare; give "
                            "another --out, or what it was begun with")  # fmt: skip
    return study


def _create(search: Search) -> optuna.Study:
    import optuna

    search.folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=STUDY,
        storage=_storage(search.folder),
        direction="maximize",
        pruner=_pruner(),
        load_if_exists=True,
    )
    own = own_values(search.start.recipe, search.space)
    if own is not None and not study.get_trials(deepcopy=False):
        study.enqueue_trial(own)
    for name, value in {HAS_OWN: own is not None, **_identity(search)}.items():
        study.set_user_attr(name, value)
    return study


def _pruner() -> optuna.pruners.BasePruner:
    """Return what stops a trial: its best AUC so far lies below the median of the finished ones."""
    import optuna

    return optuna.pruners.MedianPruner()


def _next_trial(study: optuna.Study, search: Search) -> optuna.Trial | None:
    """Return the trial that was interrupted, or a new one; none where there are enough.

    The sampler of a trial is made from the recipe's seed and the trial's number, so that a resumed
    study suggests what the uninterrupted one would have.
    """
    import optuna
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    begun = [each for each in trials if each.state != TrialState.WAITING]
    running = [each for each in begun if each.state == TrialState.RUNNING]
    number = running[0].number if running else len(begun)
    rng = generator(search.start.recipe.seed, "tune", number)
    study.sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**32)))
    if running:
        trial = optuna.Trial(study, running[0]._trial_id)
    elif search.num_trials is not None and len(begun) >= search.num_trials:
        return None
    else:
        trial = study.ask()
    for key, each in search.space.items():
        _suggest(trial, key, each)  # what an interrupted trial has is not drawn anew
    return trial


def _suggest(trial: optuna.Trial, key: str, each: Span | Choices) -> None:
    if isinstance(each, Choices):
        trial.suggest_categorical(key, each.values)
    elif each.is_whole:
        low, high, step = int(each.low), int(each.high), int(each.step or 1)
        trial.suggest_int(key, low, high, log=each.log, step=step)
    else:
        trial.suggest_float(key, each.low, each.high, log=each.log, step=each.step)


def _try(trial: optuna.Trial, search: Search, work: Work, clock: Clock) -> None:
    """Train the folds of a trial, as far as the budget and the pruner let it."""
    from optuna.trial import TrialState

    values = dict(trial.params)
    search.say(f"trial {trial.number}: {values_text(values)}")
    try:
        run = trial_run(search.start, search.folder, trial.number, values)
    except UserError as error:  # each value is sound, but not beside the others
        _fail(trial, search, error)
        return
    try:
        auc = _train_folds(trial, run, search, work, clock)
    except DivergedError as error:
        _fail(trial, search, error)
        return
    if auc is not None:
        work.finish(run)
        trial.study.tell(trial, auc, state=TrialState.COMPLETE)


def _train_folds(
    trial: optuna.Trial, run: Run, search: Search, work: Work, clock: Clock
) -> float | None:
    """Return the AUC over all folds; none where the trial was stopped or the budget is spent."""
    from optuna.trial import TrialState

    known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    folds: list[Columns] = []
    auc = float("nan")
    for step, fold in enumerate(search.folds):
        if step not in known and clock.is_over:
            return None
        folds.append(work.train(run, fold))
        auc = pooled_auc(folds)
        if step not in known:
            trial.report(auc, step)
        trial.study.set_user_attr(MINUTES, clock.minutes)
        search.say(f"trial {trial.number}, {step + 1} of {len(search.folds)} folds: "
                   f"AUC so far {auc:.4f}; {clock}")  # fmt: skip
        if step + 1 < len(search.folds) and trial.should_prune():
            trial.study.tell(trial, state=TrialState.PRUNED)
            search.say(f"trial {trial.number}: stopped, below the median of the finished trials")
            return None
    return auc


def _fail(trial: optuna.Trial, search: Search, error: Exception) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr(REASON, str(error))
    trial.study.tell(trial, state=TrialState.FAIL)
    search.say(f"trial {trial.number}: no result: {error}")


def values_text(values: Mapping[str, Any]) -> str:
    """Return values as one would type them, numbers in four digits."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items()
    )


def ranked(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the finished trials, the best first; of equal ones the earlier."""
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(finished, key=lambda each: (-(each.value or 0.0), each.number))


def _drop_models(study: optuna.Study, folder: Path) -> None:
    kept = {each.number for each in ranked(study)[:KEPT_MODELS]}
    trials = study.get_trials(deepcopy=False)
    ended = [each.number for each in trials if each.state.is_finished()]
    drop_models(folder, [number for number in ended if number not in kept])


def _require_results(study: optuna.Study) -> None:
    """Refuse to go on where nothing comes of it.

    Raises:
        UserError: The last trials have no result.
    """
    from optuna.trial import TrialState

    last = study.get_trials(deepcopy=False)[-MOST_FAILURES:]
    if len(last) == MOST_FAILURES and all(each.state == TrialState.FAIL for each in last):
        raise UserError(
            f"the last {MOST_FAILURES} trials had no result, the last one because of: "
            f"{last[-1].user_attrs[REASON]}; narrow the space and give another --out"
        )
