"""The command line: one verb a stage, and `run` for all of them.

Heavy imports happen inside the verbs, so that `desmatch --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from desmatch import __version__
from desmatch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from desmatch.prepare import Sources
    from desmatch.recipe import Recipe
    from desmatch.stages import Run

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0, 2 after a user's mistake, 130 after Ctrl-C."""
    parser = build_parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and known.verb not in TAKES_RECIPE:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    known.overrides = rest
    known.command = shlex.join(["desmatch", *(sys.argv[1:] if arguments is None else arguments)])
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
            known.act(known)
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


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs, in the order of the data's flow."""
    parser = argparse.ArgumentParser(
        prog="desmatch",
        description="Matching of desensitised short texts: from pairs of numbers to a submission.",
        epilog="`desmatch VERB --help` tells more of a verb.",
    )
    parser.add_argument("--version", action="version", version=f"desmatch {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_data_verbs(verbs)
    _add_stage_verbs(verbs)
    _add_output_verbs(verbs)
    return parser


TAKES_RECIPE = ("run", "prepare")
"""Verbs that take any value of a recipe as an option."""


def _add_data_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = verbs.add_parser("run", help="the whole job: from files to a submission and a report",
                           allow_abbrev=False)  # fmt: skip
    _add_sources(run)
    _add_recipe(run)
    run.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    run.set_defaults(act=_run)

    sample = verbs.add_parser("sample", help="write the toy data: train, test and unlabelled pairs")
    sample.add_argument("--out", type=Path, required=True, help="folder to write")
    sample.add_argument("--seed", type=int, default=0)
    sample.set_defaults(act=_sample)

    inspect = verbs.add_parser("inspect", help="read and check the files; print their figures")
    inspect.add_argument("folder", type=Path, nargs="?", help="folder of contest files")
    _add_sources(inspect)
    inspect.set_defaults(act=_inspect)

    prepare = verbs.add_parser("prepare", help="read, number and split the pairs",
                               allow_abbrev=False)  # fmt: skip
    _add_sources(prepare)
    _add_recipe(prepare)
    prepare.set_defaults(act=_stage, resume=False)


def _add_stage_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    texts = {
        "pretrain": "train jointly on all rows",
        "finetune": "train on the labelled rows alone",
        "pseudo-label": "go on with the model's own labels, if the recipe says so",
    }
    for name, text in texts.items():
        stage = verbs.add_parser(name, help=text)
        stage.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
        stage.add_argument("--resume", action="store_true", help="go on with an interrupted one")
        stage.set_defaults(act=_stage)


def _add_output_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    predict = verbs.add_parser("predict", help="score the run's test, or any file of pairs")
    predict.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    predict.add_argument("--test", type=Path, help="score this file instead of the run's test")
    predict.add_argument("--out", type=Path, help="with --test: file of scores, one a line")
    predict.set_defaults(act=_predict, resume=False)

    export = verbs.add_parser("export", help="write the trained model for other tools")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    export.add_argument("--to", choices=["hf"], default="hf",
                        help="hf: a folder that transformers loads by itself")  # fmt: skip
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    _add_fold(export)
    export.set_defaults(act=_export)

    evaluate = verbs.add_parser("evaluate", help="figures of the held-out rows, or of known labels")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    evaluate.add_argument("--labels", type=Path, help="labels of the test, one a line")
    evaluate.set_defaults(act=_evaluate, resume=False)

    submit = verbs.add_parser("submit", help="write the submission and its card, or check a file")
    submit.add_argument("run", type=Path, metavar="RUN", nargs="?", help="folder of the run")
    submit.add_argument("--check", type=Path, metavar="FILE", help="check this submission")
    submit.add_argument("--test", type=Path, help="with --check: the test it belongs to")
    submit.set_defaults(act=_submit, resume=False)

    report = verbs.add_parser("report", help="write the page of a run")
    report.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    report.set_defaults(act=_stage, resume=False)

    diagnose = verbs.add_parser("diagnose", help="what training did, layer by layer")
    diagnose.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    diagnose.add_argument("--batches", type=_positive, default=8, metavar="N",
                          help="joint batches whose gradients are averaged (8)")  # fmt: skip
    _add_fold(diagnose)
    diagnose.set_defaults(act=_diagnose)


def _add_fold(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fold", type=int, metavar="K",
                        help="of the model that did without this fold (the first one)")  # fmt: skip


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="DIR",
                        help="folder with train.tsv, test.tsv and, if there is one, unlabeled.tsv "
                        "(also .tsv.gz, .jsonl, .parquet)")  # fmt: skip
    parser.add_argument("--train", type=Path, action="append", metavar="FILE",
                        help="labelled pairs; may be given several times")  # fmt: skip
    parser.add_argument("--test", type=Path, metavar="FILE", help="pairs to score")
    parser.add_argument("--unlabeled", type=Path, action="append", metavar="FILE",
                        help="pairs without labels; may be given several times")  # fmt: skip
    parser.add_argument("--skip-bad", action="store_true",
                        help="keep malformed rows aside, but for the test's")  # fmt: skip


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", default="baseline", metavar="NAME",
                        help="name of a recipe of the package, or a YAML file")  # fmt: skip
    parser.add_argument(
        "--init", metavar="FOLDER", help="BERT, RoFormer or NEZHA folder to start from (model.init)"
    )
    parser.add_argument("--reference-counts", metavar="JSON",
                        help="token counts that align it (model.reference_counts)")  # fmt: skip
    parser.add_argument("--folds", type=int, metavar="K",
                        help="train K models, each without one of K folds: a score for every "
                        "labelled row (validation.num_folds, validation.folds=all)")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.epilog = (
        "Any value of a recipe is an option too, such as --pretrain.learning_rate 1e-3; "
        "RUN/recipe.yaml lists them all."
    )


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
    from desmatch.recipe import load_recipe, recipe_path

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
        print(describe_data(read_json(Path(folder) / FIGURES)))


def _predict(options: argparse.Namespace) -> None:
    if options.test is None:
        return _stage(options)
    if options.out is None:
        raise UserError("--test needs --out FILE beside it, the file of scores to write")
    from desmatch.predict import predict_file
    from desmatch.stages import load_run
    from desmatch.submit import write_scores

    scores = predict_file(load_run(options.run).last_models, options.test)
    write_scores(options.out, scores)
    print(f"wrote {len(scores)} scores to {options.out}")
    return None


def _export(options: argparse.Namespace) -> None:
    from desmatch.export import export_hugging_face
    from desmatch.stages import load_run

    run = load_run(options.run).of_fold(options.fold)
    name = export_hugging_face(run.last_model, options.out)
    print(f"wrote {options.out}, a {name}")


def _evaluate(options: argparse.Namespace) -> None:
    from desmatch.console import describe_figures
    from desmatch.evaluate import figures_on_labels
    from desmatch.predict import TEST
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


def _diagnose(options: argparse.Namespace) -> None:
    from desmatch.console import describe_diagnosis
    from desmatch.diagnose import DIAGNOSIS, diagnose
    from desmatch.stages import load_run

    run = load_run(options.run).of_fold(options.fold)
    print(describe_diagnosis(diagnose(run, num_batches=options.batches)))
    print(f"wrote {run.folder / DIAGNOSIS}")


def _positive(word: str) -> int:
    if int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {word}")
    return int(word)


def _summary(run: Run) -> str:
    from desmatch.console import describe_run
    from desmatch.runs import CARD, read_json

    return describe_run(run.folder, read_json(run.folder / CARD))


def _os_reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
