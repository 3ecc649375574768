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

from desmatch.arguments import RESUMES, TAKES_RECIPE, build_parser, with_named_recipe
from desmatch.disk import DiskError, disk_problem
from desmatch.errors import UserError, require_installed

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
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime's is on by default
    is_first = os.environ.get("RANK", "0") == "0"  # of several processes this one speaks
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(sys.stdout if is_first else nowhere),
        ):
            ACTS[known.verb](known)
    except DiskError as error:
        print(f"desmatch {known.verb}: error: {error}; {_again(known)}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"desmatch {known.verb}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"desmatch {known.verb}: error: {_os_reason(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "; the same command with --resume goes on" if "resume" in known else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr)
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
    from desmatch.tasks.on import execute_on

    run = _new_run(options)
    execute_on(run, options.on)
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


def _predict(options: argparse.Namespace) -> None:
    if options.test is None:
        if options.precision or options.chunk_rows:
            raise UserError("--precision and --chunk-rows need --test FILE beside them")
        return _stage(options)
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


def _export(options: argparse.Namespace) -> None:
    from desmatch.mends import load_whole_run

    run = load_whole_run(options.run)
    if options.to == "onnx":
        require_installed("onnx", "onnx", "onnxruntime", "onnxscript")
        from desmatch.console import describe_export
        from desmatch.deploy import export_onnx

        run = run if options.member is None else run.of_member(options.member)
        if options.fold is not None:
            run = run.of_fold(options.fold)
        manifest = export_onnx(
            run,
            options.out,
            precision=options.precision,
            graphs=options.graphs,
            with_rows=options.with_rows,
        )
        print(describe_export(options.out, manifest))
        return
    from desmatch.export import export_hugging_face, export_torch

    write = {"hf": export_hugging_face, "torch": export_torch}[options.to]
    name = write(run.of_member(options.member).of_fold(options.fold).last_model, options.out)
    print(f"wrote {options.out}, a {name}")


def _serve(options: argparse.Namespace) -> None:
    require_installed("serve", "fastapi", "onnxruntime", "prometheus_client", "uvicorn")
    from desmatch.serve.contracts import Limits
    from desmatch.serve.nearest import ROWS, NearestRows
    from desmatch.serve.server import Place, serve
    from desmatch.serve.session import ServedModel

    folder, is_both = _exported(options.model), options.orders == "both"
    model = ServedModel.load(folder, num_threads=options.threads, both_orders=is_both)
    path = options.rows or folder / ROWS
    rows = NearestRows.read(path) if options.rows or path.is_file() else None
    place = Place(
        host=options.host,
        port=options.port,
        contract=options.contract,
        allow_exit=options.allow_exit,
        drain_seconds=options.drain_seconds,
    )
    limits = Limits(
        body_bytes=options.max_body, pairs_per_call=options.max_pairs, ids_per_text=options.max_ids
    )
    serve(model, place, limits, rows=rows)


def _exported(folder: Path) -> Path:
    """Return the folder itself if it was exported, else where the run it is of is exported to."""
    if not (folder / "recipe.yaml").is_file():
        return folder
    require_installed("onnx", "onnx", "onnxscript")
    from desmatch.deploy import exported
    from desmatch.mends import load_whole_run

    return exported(load_whole_run(folder, say=print))


def _evaluate(options: argparse.Namespace) -> None:
    from desmatch.console import describe_figures
    from desmatch.evaluate import figures_on_labels
    from desmatch.mends import load_whole_run
    from desmatch.runs import TEST

    if options.labels is None:
        _stage(options)
    run = load_whole_run(options.run)
    if options.labels is not None:
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


def _diagnose(options: argparse.Namespace) -> None:
    from desmatch.console import describe_diagnosis
    from desmatch.diagnose import DIAGNOSIS, diagnose
    from desmatch.mends import load_whole_run

    run = load_whole_run(options.run).of_member(options.member).of_fold(options.fold)
    print(describe_diagnosis(diagnose(run, num_batches=options.batches)))
    print(f"wrote {run.folder / DIAGNOSIS}")


def _referee(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from desmatch.console import describe_verdict
    from desmatch.data.read import column, read_pairs
    from desmatch.runs import write_json
    from desmatch.serve.referee import Rules, referee
    from desmatch.submit import write_scores

    for path in filter(None, (options.out, options.json)):
        if path.is_dir():  # said before a quarter of an hour is spent
            raise UserError(f"{path}: expected a file to write, got a folder; name a file in it")
    rules = Rules(
        contract=options.contract,
        seconds=60 * options.minutes,
        limit_ms=options.limit_ms,
        timeout_seconds=options.timeout,
        wait_seconds=options.wait,
    )
    rows = read_pairs([options.test], labels="optional").rows
    a, b = (column(rows, name).slice(0, options.rows).to_pylist() for name in "ab")
    verdict = referee(options.url, list(zip(a, b, strict=True)), rules, progress="referee")
    figures = asdict(verdict.figures)
    print(describe_verdict(figures))
    if options.json is not None:
        write_json(options.json, figures)
    if verdict.figures.failed == verdict.figures.sent:
        raise UserError(f"{options.url}: no row has a score, so {options.out} is not written")
    write_scores(options.out, [verdict.scores])
    print(f"wrote {len(verdict.scores)} scores to {options.out}")


def _anonymize(options: argparse.Namespace) -> None:
    from desmatch.console import describe_published
    from desmatch.publish.anonymize import Protection, Request, anonymize
    from desmatch.publish.key import read_secret
    from desmatch.publish.plain import Columns

    if options.rare_buckets > 1 and options.min_count == 1:
        raise UserError("--rare-buckets needs --min-count K beside it, which says what is rare")
    names = tuple(options.columns.split(",")) if options.columns is not None else ()
    request = Request(
        inputs=options.inputs,
        out=options.out,
        key=options.key,
        columns=Columns(names=names, has_header=not options.no_header),
        tokens=options.tokens,
        lowercase=options.lowercase,
        secret=read_secret(options.secret_file),
        protection=Protection(
            min_count=options.min_count,
            rare_buckets=options.rare_buckets,
            is_shuffled=options.shuffle,
        ),
        may_hold_key=options.key_in_out,
    )
    print(describe_published(anonymize(request), options.key))


def _audit(options: argparse.Namespace) -> None:
    from desmatch.console import describe_audit
    from desmatch.publish.audit import Audit, audit
    from desmatch.report.audit import write_audit

    if options.out.is_dir():  # said before the work is done
        raise UserError(f"{options.out}: expected a file to write, got a folder; name a file in it")
    figures = audit(
        Audit(
            data=options.data,
            public_counts=options.public_counts,
            public_pairs=options.public_pairs,
            key=options.key,
            auc_rows=options.auc_rows,
            seed=options.seed,
        )
    )
    figures_path = write_audit(options.out, figures)
    print(describe_audit(figures))
    print(f"wrote {options.out} and {figures_path}")


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
    problem = disk_problem(error) or str(error.strerror)
    return f"{error.filename}: {problem}" if error.filename else problem


def _again(options: argparse.Namespace) -> str:
    """Say which command goes on where this one stopped."""
    resume = " --resume" if options.verb in RESUMES and not options.resume else ""
    return f"then `{options.command}{resume}` goes on; what was finished is kept"


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
    "serve": _serve,
    "referee": _referee,
    "anonymize": _anonymize,
    "audit": _audit,
    "runs": _runs,
}
"""A verb to what does its work."""
