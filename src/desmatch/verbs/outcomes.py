"""Verbs that ask finished runs: scores, figures, pages, submissions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from desmatch.errors import UserError
from desmatch.verbs.training import stage, summary

if TYPE_CHECKING:
    import argparse


def predict(options: argparse.Namespace) -> None:
    """Score the run's own test, or any file."""
    if options.test is None:
        if options.precision or options.chunk_rows:
            raise UserError("--precision and --chunk-rows need --test FILE beside them")
        return stage(options)
    if options.out is None:
        raise UserError("--test needs --out FILE beside it, the file of scores to write")
    from desmatch.bulk import Manner, predict_file
    from desmatch.mends import load_whole_run

    given = {"precision": options.precision, "chunk_rows": options.chunk_rows}
    manner = Manner(**{name: value for name, value in given.items() if value is not None})
    run = load_whole_run(options.run, may_resume=options.resume, say=print)
    num_rows = predict_file(run, options.test, options.out, manner)
    print(f"wrote {num_rows} scores to {options.out}")
    return None


def evaluate(options: argparse.Namespace) -> None:
    """Say how good a run is, on held-out rows and on labels that turned up later."""
    from desmatch.console import describe_figures
    from desmatch.evaluate import figures_on_labels
    from desmatch.mends import load_whole_run
    from desmatch.runs import TEST

    if options.labels is None:
        stage(options)
    run = load_whole_run(options.run)
    if options.labels is not None:
        predictions = run.folder / "predictions" / TEST
        groups = run.prepared.graph("test").pair_component
        figures = figures_on_labels(options.labels, predictions, groups, run.recipe)
        print(describe_figures(f"AUC on {options.labels}", figures))
    print(summary(run))


def submit(options: argparse.Namespace) -> None:
    """Write a submission, or check one."""
    if options.check is None:
        if options.run is None:
            raise UserError("name the run: `desmatch submit RUN`, or --check FILE --test FILE")
        return stage(options)
    if options.test is None:
        raise UserError("--check needs --test FILE beside it, the test the submission belongs to")
    from desmatch.submit import describe_check

    print(describe_check(options.check, options.test))
    return None


def report(options: argparse.Namespace) -> None:
    """Write the page of a run, or one that compares several."""
    from desmatch.console import describe_comparison
    from desmatch.mends import require_whole
    from desmatch.report.comparison import PAGE, write_comparison
    from desmatch.report.content import read_content
    from desmatch.report.page import write_report

    for run in options.runs:
        require_whole(run)
    if len(options.runs) > 1:
        page = options.out or Path(PAGE)
        print(describe_comparison(write_comparison(options.runs, page)))
    elif options.out is not None:
        raise UserError("--out is for several runs; the page of one run lies in its folder")
    else:
        page = write_report(options.runs[0], read_content(options.runs[0]))
    print(f"wrote {page}")


def diagnose(options: argparse.Namespace) -> None:
    """Say what training did, layer by layer."""
    from desmatch.console import describe_diagnosis
    from desmatch.diagnose import DIAGNOSIS, diagnose
    from desmatch.mends import load_whole_run

    run = load_whole_run(options.run).of_member(options.member).of_fold(options.fold)
    print(describe_diagnosis(diagnose(run, num_batches=options.batches)))
    print(f"wrote {run.folder / DIAGNOSIS}")


def runs(options: argparse.Namespace) -> None:
    """List the runs of a folder."""
    from desmatch.console import describe_runs
    from desmatch.ledger import read_runs

    entries = [entry._asdict() for entry in read_runs(options.folder)]
    print(json.dumps(entries, indent=2) if options.json else describe_runs(entries))
