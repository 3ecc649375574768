"""What may be typed: the verbs and their options.

Nothing heavy is imported, so that `desmatch --help` answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from desmatch import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

TAKES_RECIPE = ("run", "tune", "prepare")
"""Verbs that take any value of a recipe as an option."""

RESUMES = ("run", "tune", "mlm", "distill", "pretrain", "finetune", "pseudo-label", "predict")
"""Verbs that take --resume."""


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


def _add_data_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = verbs.add_parser("run", help="the whole job: from files to a submission and a report",
                           allow_abbrev=False)  # fmt: skip
    _add_sources(run)
    _add_recipe(run)
    run.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    run.add_argument("--on", default="local", metavar="WHERE",
                     help="who trains folds and members: local, one after the other (the default); "
                     "processes[:N] of this machine; ray[:ADDRESS] or ray://HOST:PORT, "
                     "a cluster whose hosts share RUN")  # fmt: skip

    tune = verbs.add_parser("tune", help="search for the values of a recipe, trial by trial",
                            usage="desmatch tune [RECIPE] --data DIR --out DIR [options]",
                            allow_abbrev=False)  # fmt: skip
    _add_sources(tune)
    _add_recipe(tune, out="folder of the study")
    tune.add_argument("--space", type=Path, metavar="FILE",
                      help="YAML: keys of the recipe and their ranges (of finetune)")  # fmt: skip
    tune.add_argument("--minutes", type=_above_zero, metavar="N",
                      help="begin no fold after these minutes, counted over the study")  # fmt: skip
    tune.add_argument("--trials", type=_positive, metavar="N",
                      help="begin no trial after this many, counted over the study")  # fmt: skip
    tune.add_argument("--resume", action="store_true", help="go on with an interrupted training")

    sample = verbs.add_parser("sample", help="write the toy data: train, test and unlabelled pairs")
    sample.add_argument("--out", type=Path, required=True, help="folder to write")
    sample.add_argument("--seed", type=int, default=0)

    inspect = verbs.add_parser(
        "inspect", help="read and check the files; what their graph and their test are like"
    )
    inspect.add_argument("folder", type=Path, nargs="?", help="folder of contest files")
    _add_sources(inspect)
    inspect.add_argument("--json", action="store_true", help="print all figures as JSON")
    inspect.add_argument("--counts", type=Path, metavar="FILE",
                         help="write how often each id was seen, most often first, as the JSON "
                         "that --reference-counts reads")  # fmt: skip
    inspect.epilog = (
        "--unlabeled FILE alone checks and counts files of any length: memory is for a block of "
        "rows and the distinct ids."
    )

    prepare = verbs.add_parser("prepare", help="read, number and split the pairs",
                               allow_abbrev=False)  # fmt: skip
    _add_sources(prepare)
    _add_recipe(prepare)
    prepare.set_defaults(resume=False)


def _add_stage_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    texts = {
        "mlm": "train on masked tokens of all rows, if the recipe says so",
        "distill": "let the recipe's teacher, if any, label all rows",
        "pretrain": "train jointly on all rows",
        "finetune": "train on the labelled rows alone",
        "pseudo-label": "go on with the model's own labels, if the recipe says so",
    }
    for name, text in texts.items():
        stage = verbs.add_parser(name, help=text)
        stage.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
        stage.add_argument("--resume", action="store_true", help="go on with an interrupted one")


def _add_output_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    predict = verbs.add_parser("predict", help="score the run's test, or any file of pairs")
    predict.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    predict.add_argument("--test", type=Path, help="score this file instead of the run's test")
    predict.add_argument("--out", type=Path, metavar="FILE",
                         help="with --test: file of scores, one a line, or .parquet with the "
                         "logits of both orders too")  # fmt: skip
    predict.add_argument("--precision", choices=["fp32", "bf16", "int8"],
                         help="with --test: of matrix products (fp32); int8 is scored by ONNX "
                         "Runtime")  # fmt: skip
    predict.add_argument("--chunk-rows", type=_positive, metavar="N",
                         help="with --test: rows that are scored and kept at a time")  # fmt: skip
    predict.add_argument("--resume", action="store_true", help="go on with an interrupted one")

    export = verbs.add_parser("export", help="write the trained model for other tools")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    export.add_argument(
        "--to",
        choices=["hf", "onnx", "torch"],
        default="hf",
        help="hf: a folder that transformers loads by itself; onnx: all models of "
        "the run, for `desmatch serve`; torch: a program of torch.export",
    )
    export.add_argument("--precision", choices=["fp32", "fp16", "int8"], default="fp32",
                        help="with onnx: of the weights; int8 is the fastest on a CPU")  # fmt: skip
    export.add_argument(
        "--graphs",
        choices=["several", "one"],
        default="several",
        help="with onnx: a graph for each model, or one for all of a vocabulary",
    )
    export.add_argument("--with-rows", action="store_true",
                        help="with onnx: the labelled pairs go along, for the service to show "
                        "those nearest to a pair")  # fmt: skip
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    _add_which_model(export)

    evaluate = verbs.add_parser("evaluate", help="figures of the held-out rows, or of known labels")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    evaluate.add_argument("--labels", type=Path, help="labels of the test, one a line")
    evaluate.set_defaults(resume=False)

    submit = verbs.add_parser("submit", help="write the submission and its card, or check a file")
    submit.add_argument("run", type=Path, metavar="RUN", nargs="?", help="folder of the run")
    submit.add_argument("--check", type=Path, metavar="FILE", help="check this submission")
    submit.add_argument("--test", type=Path, help="with --check: the test it belongs to")
    submit.set_defaults(resume=False)

    report = verbs.add_parser("report", help="write the page of a run, or one that compares runs")
    report.add_argument("runs", type=Path, metavar="RUN", nargs="+",
                        help="folder of a run; others are compared with the first")  # fmt: skip
    report.add_argument("--out", type=Path, metavar="FILE",
                        help="with several runs: the page to write (comparison.html)")  # fmt: skip

    diagnose = verbs.add_parser("diagnose", help="what training did, layer by layer")
    diagnose.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    diagnose.add_argument("--batches", type=_positive, default=8, metavar="N",
                          help="joint batches whose gradients are averaged (8)")  # fmt: skip
    _add_which_model(diagnose)

    _add_serve(verbs)
    _add_referee(verbs)
    _add_anonymize(verbs)
    _add_audit(verbs)

    runs = verbs.add_parser("runs", help="list runs with their figures, the best first")
    runs.add_argument("folder", type=Path, metavar="FOLDER", nargs="?", default=Path("runs"),
                      help="folder that the runs lie in (runs)")  # fmt: skip
    runs.add_argument("--json", action="store_true", help="the same as JSON")


def _add_serve(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = verbs.add_parser("serve", help="answer over HTTP whether pairs match")
    serve.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="what `desmatch export --to onnx` wrote, or a finished run",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8080, help="port (8080); 0: any free one")
    serve.add_argument("--contract", choices=["v1", "gaiic"], default="v1",
                       help="gaiic adds the route of GAIIC 2021 track 3, round 2")  # fmt: skip
    serve.add_argument(
        "--orders",
        choices=["both", "one"],
        default="both",
        help="score both orders of a pair, or the given one alone, faster",
    )
    serve.add_argument("--rows", type=Path, metavar="FILE",
                       help="labelled pairs to show the nearest of, such as train.tsv (those of an "
                       "export --with-rows)")  # fmt: skip
    serve.add_argument("--threads", type=int, default=0, metavar="N",
                       help="of one product of matrices; 0: one a core")  # fmt: skip
    serve.add_argument(
        "--allow-exit",
        action="store_true",
        help="let anybody stop the service by the contest's body `exit`",
    )
    serve.add_argument(
        "--drain-seconds",
        type=float,
        default=1.0,
        metavar="S",
        help="from SIGTERM, when /readyz fails, to the closing of the port (1)",
    )
    serve.add_argument("--max-body", type=_positive, default=1 << 20, metavar="BYTES",
                       help="of a request (1048576)")  # fmt: skip
    serve.add_argument("--max-pairs", type=_positive, default=1000, metavar="N",
                       help="of a request (1000)")  # fmt: skip
    serve.add_argument("--max-ids", type=_positive, default=1000, metavar="N",
                       help="of a text (1000)")  # fmt: skip


def _add_referee(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    referee = verbs.add_parser("referee", help="send a test to a server as the contest does")
    referee.add_argument("--url", required=True, metavar="URL", help="http://host:port")
    referee.add_argument("--test", type=Path, required=True, metavar="FILE", help="pairs to send")
    referee.add_argument("--out", type=Path, required=True, metavar="FILE",
                         help="scores to write, one a line; 0 where there is none")  # fmt: skip
    referee.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    referee.add_argument("--contract", choices=["gaiic", "v1"], default="gaiic",
                         help="gaiic: POST /tccapi (the default); v1: POST /v1/match")  # fmt: skip
    referee.add_argument("--minutes", type=_above_zero, default=15.0, metavar="N",
                         help="for all pairs; rows not reached get 0 (15)")  # fmt: skip
    referee.add_argument("--limit-ms", type=_above_zero, default=18.0, metavar="N",
                         help="count the answers that take longer (18)")  # fmt: skip
    referee.add_argument("--timeout", type=_above_zero, default=10.0, metavar="SECONDS",
                         help="an answer that takes longer has failed (10)")  # fmt: skip
    referee.add_argument("--wait", type=_above_zero, default=60.0, metavar="SECONDS",
                         help="for the server to be ready, off the clock (60)")  # fmt: skip
    referee.add_argument("--rows", type=_positive, metavar="N",
                         help="send and write the first N rows alone")  # fmt: skip


def _add_anonymize(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    anonymize = verbs.add_parser("anonymize", help="turn pairs of plain texts into numbered ones")
    anonymize.add_argument("inputs", type=Path, metavar="INPUT", nargs="+",
                           help="TSV, .csv, .jsonl or .parquet, also .gz")  # fmt: skip
    anonymize.add_argument("--out", type=Path, required=True, metavar="FOLDER",
                           help="new folder of the numbered files, to be published")  # fmt: skip
    anonymize.add_argument("--key", type=Path, required=True, metavar="FILE",
                           help="key to make or to extend, never to be published")  # fmt: skip
    anonymize.add_argument("--columns", metavar="A,B[,LABEL]",
                           help="names of the columns (a,b,label); with --no-header numbers from "
                           "1; a TSV has a header only where this is given")  # fmt: skip
    anonymize.add_argument("--no-header", action="store_true", help="line 1 is a row too")
    anonymize.add_argument("--tokens", default="auto", metavar="auto|TOKENIZER",
                           help="auto: characters of Chinese, Japanese and Thai, words elsewhere; "
                           "or a tokenizer.json, or a folder of transformers")  # fmt: skip
    anonymize.add_argument("--lowercase", action="store_true", help="with auto: A is a")
    anonymize.add_argument("--secret-file", type=Path, metavar="FILE",
                           help="secret that decides the numbers; else the environment's "
                           "DESMATCH_SECRET, else the key's, else a random one")  # fmt: skip
    anonymize.add_argument("--min-count", type=_positive, default=1, metavar="K",
                           help="tokens seen fewer than K times share a number (1)")  # fmt: skip
    anonymize.add_argument("--rare-buckets", type=_positive, default=1, metavar="N",
                           help="with --min-count: one of N numbers (1)")  # fmt: skip
    anonymize.add_argument("--shuffle", action="store_true",
                           help="put each file's rows into an order of the secret's")  # fmt: skip
    anonymize.add_argument("--key-in-out", action="store_true",
                           help="let the key lie in the folder that is published")  # fmt: skip


def _add_audit(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    audit = verbs.add_parser("audit", help="how exposed the tokens of numbered pairs are")
    audit.add_argument("data", type=Path, metavar="DATA", nargs="+",
                       help="numbered files, or folders of them")  # fmt: skip
    audit.add_argument("--public-counts", type=Path, metavar="JSON",
                       help="token counts of an open corpus, which an attacker has")  # fmt: skip
    audit.add_argument("--public-pairs", type=Path, metavar="FILE",
                       help="plain pairs of an attacker: a stronger attack")  # fmt: skip
    audit.add_argument("--key", type=Path, metavar="FILE",
                       help="of these files: measures what the attacker gets right")  # fmt: skip
    audit.add_argument("--out", type=Path, default=Path("audit.html"), metavar="FILE",
                       help="page to write, its figures beside it (audit.html)")  # fmt: skip
    audit.add_argument("--auc-rows", type=int, default=20_000, metavar="N",
                       help="most labelled rows that protection's cost in AUC is measured on; 0: "
                       "it is not (20000)")  # fmt: skip
    audit.add_argument("--seed", type=int, default=0)


def _add_which_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--member", metavar="NAME", help="of this member of an ensemble")
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


def _add_recipe(parser: argparse.ArgumentParser, *, out: str = "folder of the run") -> None:
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
    name = "RUN" if out == "folder of the run" else "DIR"
    parser.add_argument("--out", type=Path, required=True, metavar=name, help=out)
    parser.epilog = (
        "Any value of a recipe is an option too, such as --pretrain.learning_rate 1e-3; "
        "recipe.yaml in a run's folder lists them all."
    )


def with_named_recipe(words: Sequence[str]) -> list[str]:
    """Return `tune RECIPE ...` as `tune --recipe RECIPE ...`, all else as it is.

    As a positional argument of argparse it would swallow the value of any option of the recipe.
    """
    if list(words[:1]) == ["tune"] and len(words) > 1 and not words[1].startswith("-"):
        return ["tune", "--recipe", *words[1:]]
    return list(words)


def _positive(word: str) -> int:
    if int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {word}")
    return int(word)


def _above_zero(word: str) -> float:
    if not 0 < float(word) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected more than 0, got {word}")
    return float(word)
