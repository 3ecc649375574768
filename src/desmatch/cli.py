"""The command line: one verb a stage, and `run` for all of them.

Heavy imports happen inside the verbs, so that `desmatch --help` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from desmatch.arguments import RESUMES, TAKES_RECIPE, build_parser, with_named_recipe
from desmatch.disk import DiskError, disk_problem
from desmatch.errors import UserError
from desmatch.verbs import outcomes, publishing, serving, training

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence


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
        _tell(known.verb, f"{error}; {_again(known)}")
        return 2
    except UserError as error:
        _tell(known.verb, str(error))
        return 2
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        _tell(known.verb, _os_reason(error))
        return 2
    except KeyboardInterrupt:
        goes_on = "; the same command with --resume goes on" if "resume" in known else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _tell(verb: str, error: str) -> None:
    """Print an error; what is no text, halves of UTF-16 for one, is written as its number."""
    text = error.encode("utf-8", "backslashreplace").decode()
    print(f"desmatch {verb}: error: {text}", file=sys.stderr)


def _os_reason(error: OSError) -> str:
    problem = disk_problem(error) or str(error.strerror)
    return f"{error.filename}: {problem}" if error.filename else problem


def _again(options: argparse.Namespace) -> str:
    """Say which command goes on where this one stopped."""
    resume = " --resume" if options.verb in RESUMES and not options.resume else ""
    return f"then `{options.command}{resume}` goes on; what was finished is kept"


ACTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "run": training.run,
    "tune": training.tune,
    "sample": training.sample,
    "inspect": training.inspect,
    "prepare": training.stage,
    "mlm": training.stage,
    "distill": training.stage,
    "pretrain": training.stage,
    "finetune": training.stage,
    "pseudo-label": training.stage,
    "predict": outcomes.predict,
    "export": serving.export,
    "evaluate": outcomes.evaluate,
    "submit": outcomes.submit,
    "report": outcomes.report,
    "diagnose": outcomes.diagnose,
    "serve": serving.serve,
    "referee": serving.referee,
    "anonymize": publishing.anonymize,
    "audit": publishing.audit,
    "runs": outcomes.runs,
}
"""A verb to what does its work."""
