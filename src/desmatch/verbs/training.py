"""Verbs that make data and train: from files to a finished run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from desmatch.errors import UserError

if TYPE_CHECKING:
    import argparse

    from desmatch.intake import Sources
    from desmatch.recipe import Recipe
    from desmatch.stages import Run


def run(options: argparse.Namespace) -> None:
    """Do the whole job."""
    from desmatch.tasks.on import execute_on

    run = _new_run(options)
    execute_on(run, options.on)
    print(summary(run))


def tune(options: argparse.Namespace) -> None:
    """Search a recipe's values."""
    from desmatch.console import describe_tuning
    from desmatch.tune.outcome import conclude
    from desmatch.tune.space import DEFAULT_SPACE, read_space
    from desmatch.tune.study import Search, require_optuna, run_study
    from desmatch.tune.trials import START

    if options.minutes is None and options.trials is None:
        raise UserError("name the budget: --minutes N, --trials N or both")
    require_optuna()
    start = replace(_new_run(options), folder=options.out / START)
    space = read_space(options.space or DEFAULT_SPACE, start.recipe)
    search = Search(start, space, options.out, options.minutes, options.trials, say=print)
    figures = conclude(search, run_study(search))
    print(describe_tuning(options.out, figures))
    if figures["best"] is None:
        raise UserError("no trial is finished yet; the same command with more --minutes goes on")


def stage(options: argparse.Namespace) -> None:
    """Do one stage of a run."""
    from desmatch.pipeline import execute
    from desmatch.stages import load_run

    if options.verb == "prepare":
        run = _new_run(options)
    else:
        run = load_run(options.run, command=options.command, may_resume=options.resume, say=print)
    execute(run, only=options.verb)
    print(f"{options.verb}: done, see {run.folder}")


def sample(options: argparse.Namespace) -> None:
    """Write pairs of the toy language."""
    from desmatch.data.sample import write_sample

    write_sample(options.out, seed=options.seed)
    print(f"wrote {options.out}")


def inspect(options: argparse.Namespace) -> None:
    """Say what the data are, and what to beware of."""
    from desmatch.console import describe_data
    from desmatch.recipe import Recipe
    from desmatch.runs import write_json
    from desmatch.survey import count_files, measure

    options.data = options.data or options.folder
    if options.unlabeled and not (options.data or options.train or options.test):
        figures, counts = count_files(options.unlabeled, Recipe(), skip_bad=options.skip_bad)
    else:
        measured = measure(_sources(options), Recipe(), skip_bad=options.skip_bad)
        figures, counts = measured.figures, measured.counts
    if options.counts is not None:
        write_json(
            options.counts, dict(zip(*counts.by_frequency.to_pydict().values(), strict=True))
        )
    print(json.dumps(figures, indent=2) if options.json else describe_data(figures))


def summary(run: Run) -> str:
    """Return what the terminal says of a finished run."""
    from desmatch.console import describe_run
    from desmatch.runs import CARD, read_json

    return describe_run(run.folder, read_json(run.folder / CARD))


def _new_run(options: argparse.Namespace) -> Run:
    from desmatch.stages import Run

    return Run(
        folder=options.out,
        recipe=_recipe(options),
        sources=_sources(options),
        recipe_name=options.recipe,
        command=options.command,
        may_resume=options.resume,
        skip_bad=options.skip_bad,
        say=print,
    )


def _sources(options: argparse.Namespace) -> Sources:
    from desmatch.intake import Sources, find_sources

    named = (options.train, options.test, options.unlabeled)
    if options.data is not None:
        if any(named):
            raise UserError("give --data, or --train and --test, not both")
        return find_sources(options.data)
    if not options.train or not options.test:
        raise UserError("name the data: --data DIR, or --train FILE and --test FILE")
    return Sources(tuple(options.train), options.test, tuple(options.unlabeled or ()))


def _recipe(options: argparse.Namespace) -> Recipe:
    from desmatch.recipe_file import load_recipe, recipe_path

    overrides = list(options.overrides)
    for value, name in ((options.init, "init"), (options.reference_counts, "reference_counts")):
        if value is not None:
            overrides.append(f"--model.{name}={value}")
    if options.folds is not None:
        if options.folds < 2:
            raise UserError(f"--folds: expected 2 or more, got {options.folds}; one model without "
                            "one of 10 folds is trained without this option")  # fmt: skip
        overrides += [f"--validation.num_folds={options.folds}", "--validation.folds=all"]
    return load_recipe(recipe_path(options.recipe), overrides)
