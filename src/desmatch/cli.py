"""The command line: one verb a stage, and `run` for all of them.

Heavy imports happen inside the verbs, so that `desmatch --help` answers at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from desmatch.arguments import TAKES_RECIPE, build_parser, with_named_recipe
from desmatch.errors import UserError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from desmatch.prepare import Sources
    from desmatch.recipe import Recipe
    from desmatch.stages import Run

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0, 2 after a user's mistake, 130 after Ctrl-C."""
    parser = build_parser()
    words = sys.argv[1:] if arguments is None else [*arguments]
    known, rest = parser.parse_known_args(with_named_recipe(words))
    if rest and known.verb not in TAKES_RECIPE:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    known.overrides = rest
    known.command = shlex.join(["desmatch", *words])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    is_first = os.environ.get("RANK", "0") == "0"  # of several processes this one speaks
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(sys.stdout if is_first else nowhere),
        ):
            ACTS[known.verb](known)
    except UserError as error:
        print(f"desmatch {known.verb}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"desmatch {known.verb}: error: {_os_reason(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --resume goes on", file=sys.stderr)
        return INTERRUPTED
    return 0


def _sources(options: argparse.Namespace) -> Sources:
    from desmatch.prepare import Sources, find_sources

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


def _run(options: argparse.Namespace) -> None:
    from desmatch.pipeline import execute

    run = _new_run(options)
    execute(run)
    print(_summary(run))


def _tune(options: argparse.Namespace) -> None:
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


def _stage(options: argparse.Namespace) -> None:
    from desmatch.pipeline import execute
    from desmatch.stages import load_run

    if options.verb == "prepare":
        run = _new_run(options)
    else:
        run = load_run(options.run, command=options.command, may_resume=options.resume, say=print)
    execute(run, only=options.verb)
    print(f"{options.verb}: done, see {run.folder}")


def _sample(options: argparse.Namespace) -> None:
    from desmatch.data.sample import write_sample

    write_sample(options.out, seed=options.seed)
    print(f"wrote {options.out}")


def _inspect(options: argparse.Namespace) -> None:
    from tempfile import TemporaryDirectory

    from desmatch.console import describe_data
    from desmatch.prepare import FIGURES, prepare
    from desmatch.recipe import Recipe
    from desmatch.runs import read_json

    options.data = options.data or options.folder
    with TemporaryDirectory() as folder:
        prepare(_sources(options), Recipe(), Path(folder), skip_bad=options.skip_bad)
        figures = read_json(Path(folder) / FIGURES)
    print(json.dumps(figures, indent=2) if options.json else describe_data(figures))


def _predict(options: argparse.Namespace) -> None:
    if options.test is None:
        if options.precision or options.chunk_rows:
            raise UserError("--precision and --chunk-rows need --test FILE beside them")
        return _stage(options)
    if options.out is None:
        raise UserError("--test needs --out FILE beside it, the file of scores to write")
    from desmatch.bulk import Manner, predict_file
    from desmatch.stages import load_run

    given = {"precision": options.precision, "chunk_rows": options.chunk_rows}
    manner = Manner(**{name: value for name, value in given.items() if value is not None})
    run = load_run(options.run, may_resume=options.resume)
    num_rows = predict_file(run, options.test, options.out, manner)
    print(f"wrote {num_rows} scores to {options.out}")
    return None


def _export(options: argparse.Namespace) -> None:
    from desmatch.export import export_hugging_face
    from desmatch.stages import load_run

    run = load_run(options.run).of_member(options.member).of_fold(options.fold)
    name = export_hugging_face(run.last_model, options.out)
    print(f"wrote {options.out}, a {name}")


def _evaluate(options: argparse.Namespace) -> None:
    from desmatch.console import describe_figures
    from desmatch.evaluate import figures_on_labels
    from desmatch.runs import TEST
    from desmatch.stages import load_run

    run = load_run(options.run)
    if options.labels is None:
        _stage(options)
    else:
        predictions = run.folder / "predictions" / TEST
        groups = run.prepared.graph("test").pair_component
        figures = figures_on_labels(options.labels, predictions, groups, run.recipe)
        print(describe_figures(f"AUC on {options.labels}", figures))
    print(_summary(run))


def _submit(options: argparse.Namespace) -> None:
    if options.check is None:
        if options.run is None:
            raise UserError("name the run: `desmatch submit RUN`, or --check FILE --test FILE")
        return _stage(options)
    if options.test is None:
        raise UserError("--check needs --test FILE beside it, the test the submission belongs to")
    from desmatch.submit import describe_check

    print(describe_check(options.check, options.test))
    return None


def _report(options: argparse.Namespace) -> None:
    from desmatch.console import describe_comparison
    from desmatch.report.comparison import PAGE, write_comparison
    from desmatch.report.content import read_content
    from desmatch.report.page import write_report

    if len(options.runs) > 1:
        page = options.out or Path(PAGE)
        print(describe_comparison(write_comparison(options.runs, page)))
    elif options.out is not None:
        raise UserError("--out is for several runs; the page of one run lies in its folder")
    else:
        page = write_report(options.runs[0], read_content(options.runs[0]))
    print(f"wrote {page}")


def _diagnose(options: argparse.Namespace) -> None:
    from desmatch.console import describe_diagnosis
    from desmatch.diagnose import DIAGNOSIS, diagnose
    from desmatch.stages import load_run

    run = load_run(options.run).of_member(options.member).of_fold(options.fold)
    print(describe_diagnosis(diagnose(run, num_batches=options.batches)))
    print(f"wrote {run.folder / DIAGNOSIS}")


def _runs(options: argparse.Namespace) -> None:
    from desmatch.console import describe_runs
    from desmatch.ledger import read_runs

    entries = [entry._asdict() for entry in read_runs(options.folder)]
    print(json.dumps(entries, indent=2) if options.json else describe_runs(entries))


def _summary(run: Run) -> str:
    from desmatch.console import describe_run
    from desmatch.runs import CARD, read_json

    return describe_run(run.folder, read_json(run.folder / CARD))


def _os_reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


ACTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "run": _run,
    "tune": _tune,
    "sample": _sample,
    "inspect": _inspect,
    "prepare": _stage,
    "mlm": _stage,
    "distill": _stage,
    "pretrain": _stage,
    "finetune": _stage,
    "pseudo-label": _stage,
    "predict": _predict,
    "export": _export,
    "evaluate": _evaluate,
    "submit": _submit,
    "report": _report,
    "diagnose": _diagnose,
    "runs": _runs,
}
"""A verb to what does its work."""
