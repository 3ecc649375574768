"""Exported models on ONNX Runtime: from texts to scores, without torch.

Shapes: B pairs, L tokens, F models of one vocabulary.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from desmatch.data.batches import plan_prediction
from desmatch.data.vocabulary import Vocabulary
from desmatch.ensemble.predictions import Predictions, combine_predictions
from desmatch.ensemble.rules import rule_from_json
from desmatch.errors import UserError
from desmatch.runs import read_json_object
from desmatch.schema import Special
from desmatch.seals import damage, require_format

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it is read when onnxruntime is imported
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    RuntimeException,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from desmatch.data.vocabulary import EncodedPairs
    from desmatch.ensemble.combine import Fitted

MANIFEST = "serving.json"

CALL_PAIRS = 8
"""Pairs of like length that share a call of a graph: more do not stay in a core's cache."""

UNREADABLE = (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    RuntimeException,
    UnicodeDecodeError,  # its message has a name of the graph in it, which is no UTF-8
)
"""What ONNX Runtime raises on a file that is no graph, or one it cannot run."""

SHORTEST = {
    "input_ids": np.array([[Special.CLS, Special.UNK, Special.SEP, Special.UNK, Special.SEP]]),
    "attention_mask": np.ones((1, 5), np.int64),
}
"""A pair that every vocabulary has."""


@dataclass(frozen=True)
class SavedMember:
    """What the manifest says of the models of one vocabulary.

    Attributes:
        graphs: Files in the member's folder.
        num_models: F, in all of them together.
    """

    graphs: tuple[str, ...]
    num_models: int

    def to_json(self) -> dict[str, Any]:
        """Return it as the manifest has it."""
        return {"graphs": [*self.graphs], "num_models": self.num_models}


class MemberSession:
    """The models of one vocabulary.

    Args:
        sessions: One for each graph.
        vocabulary: Of all of them.
    """

    def __init__(
        self, sessions: Sequence[onnxruntime.InferenceSession], vocabulary: Vocabulary
    ) -> None:
        self.sessions, self.vocabulary = tuple(sessions), vocabulary

    @classmethod
    def load(cls, folder: Path, saved: SavedMember, *, num_threads: int = 0) -> MemberSession:
        """Open the graphs of a member.

        Args:
            folder: Of the member.
            saved: From the manifest.
            num_threads: Of one product; 0: one a core.

        Raises:
            UserError: A graph or the vocabulary cannot be read.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # lengths differ from call to call
        if not _has_integer_dot_products():
            options.add_session_config_entry("session.x64quantprecision", "1")
        paths = [folder / name for name in saved.graphs]
        return cls([_open(path, options) for path in paths], Vocabulary.load(folder))

    def logits(self, pairs: EncodedPairs, *, both_orders: bool = True) -> NDArray[np.float64]:
        """Return (2, F, B): both orders in one call, log p(yes) - log p(no).

        Or (1, F, B), `a` before `b` alone. Many pairs are calls of pairs of like length.
        """
        if pairs.num_pairs <= CALL_PAIRS:
            return self._call(pairs, np.arange(pairs.num_pairs), both_orders=both_orders)
        plan = plan_prediction(pairs.lengths, batch_size=CALL_PAIRS)
        calls = [self._call(pairs, rows, both_orders=both_orders) for rows in plan]
        place = np.argsort(np.concatenate(plan))
        return np.concatenate(calls, axis=2)[:, :, place]

    def _call(
        self, pairs: EncodedPairs, rows: NDArray[np.int64], *, both_orders: bool
    ) -> NDArray[np.float64]:
        count, orders = len(rows), (False, True) if both_orders else (False,)
        inputs = padded_rows(pairs, np.tile(rows, len(orders)), np.repeat(orders, count))
        each = [session.run(None, inputs)[0] for session in self.sessions]  # (rows, F') each
        logits = np.concatenate(each, axis=1).astype(np.float64)
        return logits.reshape(len(orders), count, -1).transpose(0, 2, 1)

    def score(
        self,
        pairs: EncodedPairs,
        *,
        both_orders: bool = True,
        shift: NDArray[np.float64] | float = 0.0,
    ) -> Predictions:
        """Return the mean over models and orders, as a run's predictions have it.

        Args:
            pairs: B pairs.
            both_orders: Or `a` before `b` alone.
            shift: (B,), added to the logits of each model.
        """
        logits = self.logits(pairs, both_orders=both_orders) + shift
        by_order = logits.mean(axis=1)
        return Predictions(by_order[0], by_order[-1], expit(logits).mean(axis=(0, 1)))


def _has_integer_dot_products() -> bool:
    """Whether an x86 processor adds products of int8 up in 32 bits.

    Others do so in 16, which overflow, unless ONNX Runtime is told to take a slower way; told so on
    a processor that needs it not, a call takes twice as long. Where there is no saying: no.
    """
    told = Path("/proc/cpuinfo")
    words = told.read_text(encoding="utf-8").split() if told.is_file() else []
    return not {"avx_vnni", "avx512_vnni", "amx_int8"}.isdisjoint(words)


def padded_rows(
    pairs: EncodedPairs, rows: NDArray[np.int64], swapped: NDArray[np.bool_]
) -> dict[str, NDArray[np.int64]]:
    """Return a graph's inputs: one pair a row, padded to the longest.

    Args:
        pairs: All pairs.
        rows: (B,), which of them.
        swapped: (B,), whether the second text comes first.
    """
    bounds = np.stack([pairs.offsets[2 * rows + side] for side in range(3)], axis=1)
    shape = (len(rows), int((bounds[:, 2] - bounds[:, 0]).max(initial=-2)) + 3)
    ids, mask = np.full(shape, int(Special.PAD), np.int64), np.zeros(shape, np.int64)
    for place, (start, middle, end) in enumerate(bounds.tolist()):
        first, second = pairs.ids[start:middle], pairs.ids[middle:end]
        if swapped[place]:
            first, second = second, first
        row, size, length = ids[place], len(first), end - start + 3
        row[0], row[size + 1], row[length - 1] = Special.CLS, Special.SEP, Special.SEP
        row[1 : size + 1], row[size + 2 : length - 1] = first, second
        mask[place, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _open(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Open a graph and call it once: a damaged one may show no sooner."""
    if not path.is_file():
        raise UserError(f"{path}: no such graph; give the export again")
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        logits = session.run(None, SHORTEST)[0]
    except UNREADABLE as error:
        raise UserError(f"{path}: not a graph that can be run ({error}); export again") from None
    if logits.ndim != 2 or len(logits) != 1:
        raise UserError(f"{path}: not a graph of ours (one pair gave {logits.shape}); export again")
    return session


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what an export says of itself, once its files are what they were.

    Raises:
        UserError: The folder is no export, one of a newer version, or a file is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{folder}: no exported model (needs {MANIFEST}); make one with "
            "`desmatch export RUN --to onnx --out FOLDER`"
        )
    kept = read_json_object(path)
    require_format(path, kept, mend=_again(folder))
    try:
        problem = damage(folder, kept)
    except (TypeError, ValueError):
        problem = f"{path}: damaged"
    if problem:
        raise UserError(f"{problem}; {_again(folder)}")
    return kept


def _again(folder: Path) -> str:
    """Say how an export is made again."""
    return (
        f"`rm -r {folder}` and export the run again: desmatch export RUN --to onnx --out {folder}"
    )


class ServedModel:
    """An exported run.

    Args:
        members: By name, in the order that the rule was fitted in.
        rule: Of an ensemble; none of a run that is none.
        both_orders: Whether a score is the mean of both orders of a pair, as in a submission.
    """

    def __init__(
        self,
        members: Mapping[str, MemberSession],
        rule: Fitted | None,
        *,
        both_orders: bool = True,
    ) -> None:
        self.members, self.rule, self.both_orders = dict(members), rule, both_orders
        self.known = frozenset().union(*(each.vocabulary.ids for each in members.values()))

    @classmethod
    def load(cls, folder: Path, *, num_threads: int = 0, both_orders: bool = True) -> ServedModel:
        """Open what `desmatch export --to onnx` wrote.

        Raises:
            UserError: The folder is none such, or a part of it is missing.
        """
        manifest = read_manifest(folder)
        try:
            saved = {
                name: SavedMember(tuple(each["graphs"]), each["num_models"])
                for name, each in manifest["members"].items()
            }
            kept = manifest["rule"]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{folder / MANIFEST}: no manifest of this version ({error!r}); "
                            f"{_again(folder)}") from None  # fmt: skip
        members = {
            name: MemberSession.load(folder / name, each, num_threads=num_threads)
            for name, each in saved.items()
        }
        rule = None if kept is None else rule_from_json(kept, run=str(folder))
        return cls(members, rule, both_orders=both_orders)

    def score(
        self,
        a: Any,  # noqa: ANN401 - any Arrow array or sequence of texts
        b: Any,  # noqa: ANN401 - any Arrow array or sequence of texts
        *,
        shift: NDArray[np.float64] | float = 0.0,
    ) -> Predictions:
        """Return what the models say of pairs.

        Args:
            a: (B,), ids separated by single spaces, at least one each.
            b: (B,), the second texts.
            shift: (B,), added to the logits of each model, or of the whole ensemble.
        """
        of_model = shift if self.rule is None else 0.0
        said = [
            member.score(
                member.vocabulary.encode(a, b), both_orders=self.both_orders, shift=of_model
            )
            for member in self.members.values()
        ]
        return said[0] if self.rule is None else combine_predictions(self.rule, said).shifted(shift)

    def count_unknown(self, texts: Sequence[str]) -> int:
        """Return how many ids of texts no member's vocabulary knows."""
        return sum(raw_id not in self.known for text in texts for raw_id in text.split(" "))
