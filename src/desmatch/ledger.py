"""The runs in a folder and what came out of each, the best first.

Only what a run wrote of itself is read, never its data or its models, so that runs of any age, and
runs that are still at work, can be listed.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from desmatch.errors import UserError
from desmatch.recipe_file import NOT_YAML
from desmatch.runs import CARD, MEMBERS, STAGE, read_json_object
from desmatch.stage_table import STAGES
from desmatch.stages import RECIPE, SOURCES, command_of, read_stage_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SHOWN_REVISION = 7
"""Digits of a revision that tell it from the others."""

FIGURES = ("expected_test_auc", "auc")
"""What a card without a headline claims, in this order; `interval` is that of the first it has."""


class Entry(NamedTuple):
    """One run; what it has not come to yet is none.

    Attributes:
        name: Of its folder.
        recipe: What the user called the recipe.
        seed: Of all its choices.
        figure: Which figure `auc` is, a name of the card's validation.
        auc: The figure that the run claims.
        interval: Where it will lie with 95 % certainty.
        minutes: Of all stages so far.
        revision: Of the code that made the card, its first digits.
        state: `finished`, what is unfinished, or what was finished last.
    """

    name: str
    recipe: str
    seed: int
    figure: str | None
    auc: float | None
    interval: tuple[float, float] | None
    minutes: float
    revision: str | None
    state: str


def read_runs(folder: Path) -> list[Entry]:
    """Return the runs that lie in a folder, by falling AUC; those without one last, by name.

    Raises:
        UserError: There is no run, or what one says of itself cannot be read.
    """
    found = [path.parent for path in sorted(folder.glob(f"*/{RECIPE}"))]
    runs = [run for run in found if (run / SOURCES).is_file()]
    if not runs:
        raise UserError(f"{folder}: no run in this folder; give the folder that your --out lies in")
    return sorted(
        map(read_run, runs), key=lambda entry: (entry.auc is None, -(entry.auc or 0), entry.name)
    )


def read_run(run: Path) -> Entry:
    """Return what a run says of itself.

    Raises:
        UserError: A file of the run cannot be read.
    """
    card = _read_card(run)
    figure, auc, interval = claimed_figure(card.get("validation", {}))
    asked = _Asked.read(run / RECIPE)
    members = [run / MEMBERS / name for name in asked.members]
    logs = [read_stage_log(each) for each in (run, *members)]
    so_far = sum(each["minutes"] for log in logs for each in log.values())
    return Entry(
        name=run.name,
        recipe=read_json_object(run / SOURCES).get("recipe_name", ""),
        seed=asked.seed,
        figure=figure,
        auc=auc,
        interval=interval,
        minutes=card.get("minutes", round(so_far, 2)),
        revision=_short(card["revision"]) if "revision" in card else None,
        state=_state(run, members, is_signed=bool(card)),
    )


def _read_card(run: Path) -> dict[str, Any]:
    """Return a run's card; nothing where it has none."""
    try:
        return read_json_object(run / CARD) if (run / CARD).is_file() else {}
    except UserError as error:
        raise UserError(f"{error}: `desmatch submit {run}`") from None


def claimed_figure(
    validation: dict[str, Any],
) -> tuple[str | None, float | None, tuple[float, float] | None]:
    """Return the name, the value and the interval of what a card claims; none where it does not."""
    headline = validation.get("headline")
    if headline:
        low, high = headline["interval"]
        return headline["name"], headline["value"], (low, high)
    for name in FIGURES:
        if name in validation:
            low, high = validation["interval"]
            return name, validation[name], (low, high)
    return None, None, None


class _Asked(NamedTuple):
    """What a run's recipe says of it, which may be of any age."""

    seed: int
    members: tuple[str, ...]

    @classmethod
    def read(cls, recipe: Path) -> _Asked:
        """Read them.

        Raises:
            UserError: The file cannot be read.
        """
        try:
            values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
            return cls(int(values["seed"]), tuple(values.get("members") or ()))
        except (*NOT_YAML, KeyError, TypeError) as error:
            raise UserError(
                f"{recipe}: no recipe of a run ({error}); {command_of(recipe.parent)}"
            ) from None


def _short(revision: str) -> str:
    digits, plus, changes = revision.partition("+")
    return f"{digits[:SHOWN_REVISION]}{plus}{changes}"


def _state(run: Path, members: Sequence[Path], *, is_signed: bool) -> str:
    """Return `finished`, or how far a run has come, of an ensemble the member at work."""
    making = [
        path
        for part in (run, *members)
        for pattern in (".*.making", "fold-*/.*.making")
        for path in part.glob(pattern)
    ]
    if making:
        path = max(making, key=lambda path: path.stat().st_mtime)
        name = path.name.removeprefix(".").removesuffix(".making")
        return f"{path.with_name(name).relative_to(run).as_posix()} unfinished"
    if is_signed:
        return "finished"
    own = list(_finished(run))
    of_members = [path for member in members for path in _finished(member)]
    done = [*own[:1], *of_members, *own[1:]]  # an ensemble's own data are prepared first
    return f"{done[-1].relative_to(run).as_posix()} done" if done else "nothing done"


def _finished(run: Path) -> Iterator[Path]:
    """Yield the finished folders of a run's stages, in the order in which they are made."""
    numbers = sorted(int(path.name.removeprefix("fold-")) for path in run.glob("fold-*"))
    once_a_fold = [stage.writes for stage in STAGES if stage.is_per_fold]
    of_folds = [f"fold-{number}/{written}" for number in numbers for written in once_a_fold]
    names = [
        name
        for is_per_fold, stages in groupby(STAGES, key=attrgetter("is_per_fold"))
        for name in (of_folds if is_per_fold else [stage.writes for stage in stages])
    ]
    folders = (run / name for name in names)
    yield from (folder for folder in folders if (folder / STAGE).is_file())
