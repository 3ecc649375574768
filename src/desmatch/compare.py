"""Whether a second run ranks held-out rows better than a first one, on the rows that both hold out.

Shapes: B rows that both hold out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from desmatch.errors import UserError
from desmatch.evaluate import read_scored
from desmatch.metrics.delong import delong_test
from desmatch.metrics.intervals import paired_bootstrap
from desmatch.metrics.roc import roc_auc
from desmatch.prepare import FIGURES
from desmatch.runs import VALIDATION, generator, read_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class SharedRows(NamedTuple):
    """Rows that two runs hold out.

    Attributes:
        labels: (B,), 0 or 1.
        groups: (B,), components of the query graph, as the first run has them.
        first: (B,), honest scores of the first run.
        second: (B,), of the second run.
        only_one: Rows that only one of the two holds out.
    """

    labels: NDArray[np.int8]
    groups: NDArray[np.int64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    only_one: int


def compare_runs(
    first: Path, second: Path, *, seed: int = 0, num_samples: int = 2000
) -> dict[str, Any]:
    """Return paired figures of two runs, on the rows that both hold out.

    All are of honest scores. `interval` and `chance_second_is_better` are of a bootstrap that draws
    the same components for both; `delong` takes rows for independent and is a little too sure where
    rows share texts. `warnings` says how many rows were left out.

    Args:
        first: A run's folder, its predictions done.
        second: Another one, of the same labelled rows.
        seed: Of the bootstrap.
        num_samples: Bootstrap samples.

    Raises:
        UserError: A run has no predictions, or there are no rows to compare the two on.
    """
    rows = read_shared(first, second)
    paired = paired_bootstrap(
        rows.labels,
        rows.first,
        rows.second,
        rows.groups,
        rng=generator(seed, "comparison"),
        num_samples=num_samples,
    )
    delong = delong_test(rows.labels, rows.first, rows.second)
    aucs = [roc_auc(rows.labels, scores) for scores in (rows.first, rows.second)]
    left_out = (
        f"{rows.only_one} rows that only one of the runs holds out were left out; runs of the same "
        "folds and seed hold out the same rows"
    )
    return {
        "rows": len(rows.labels),
        "auc_first": aucs[0],
        "auc_second": aucs[1],
        "difference": aucs[1] - aucs[0],
        "interval": [*paired.interval],
        "delong": {**delong._asdict(), "interval": [*delong.interval]},
        "chance_second_is_better": paired.chance_second_is_better,
        "warnings": [left_out] if rows.only_one else [],
    }


def read_shared(first: Path, second: Path) -> SharedRows:
    """Read the rows that two runs hold out.

    Raises:
        UserError: A run has no predictions, the runs are of other data, or of the rows that both
            hold out there are not two of each label.
    """
    paths = [run / "predictions" / VALIDATION for run in (first, second)]
    one, other = (read_scored(path) for path in paths)
    shared, in_one, in_other = np.intersect1d(
        one.row, other.row, assume_unique=True, return_indices=True
    )
    digests = [
        read_json(run / "prepared" / FIGURES)["data"][0]["sha256"] for run in (first, second)
    ]
    if digests[0] != digests[1] or not np.array_equal(one.labels[in_one], other.labels[in_other]):
        raise UserError(f"{first} and {second}: runs of other labelled rows cannot be compared; "
                        "give the same --train to both")  # fmt: skip
    counts = np.bincount(one.labels[in_one], minlength=2)
    if counts.min() < 2:
        raise UserError(
            f"{first} and {second}: {len(shared)} rows are held out by both, {counts[1]} of them "
            "positive; runs can be compared that hold out the same fold of the same folds and seed"
        )
    return SharedRows(
        labels=one.labels[in_one],
        groups=one.groups[in_one],
        first=one.honest_scores[in_one],
        second=other.honest_scores[in_other],
        only_one=len(one.row) + len(other.row) - 2 * len(shared),
    )
