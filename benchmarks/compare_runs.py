"""Whether a second run ranks the held-out rows better than a first: paired, with an interval.

    python benchmarks/compare_runs.py FIRST SECOND [--quick]

Both runs hold out the same rows (same data, folds and seed). The difference is that of the honest
scores' AUC; its 95 % interval is a bootstrap that draws the same components for both runs. The last
line has the same figures as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from desmatch.evaluate import Scored, read_column, read_scored
from desmatch.metrics.intervals import bootstrap_auc, paired_bootstrap
from desmatch.metrics.roc import roc_auc
from desmatch.predict import VALIDATION


def read_pair(first: Path, second: Path) -> tuple[Scored, Scored]:
    """Read both runs' held-out rows.

    Raises:
        SystemExit: They did not hold out the same rows.
    """
    paths = [run / "predictions" / VALIDATION for run in (first, second)]
    if not np.array_equal(read_column(paths[0], "row"), read_column(paths[1], "row")):
        raise SystemExit(f"{first} and {second} held out different rows; nothing to compare")
    return read_scored(paths[0]), read_scored(paths[1])


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path, metavar="FIRST")
    parser.add_argument("second", type=Path, metavar="SECOND")
    parser.add_argument("--quick", action="store_true", help="200 bootstrap samples, not 2,000")
    options = parser.parse_args()
    num_samples = 200 if options.quick else 2000
    pair = read_pair(options.first, options.second)
    labels, groups = pair[0].labels, pair[0].groups
    figures: dict[str, object] = {"rows": len(labels)}
    print(f"{'figure':<24}{'AUC':>8}  95 % interval")
    for name, scored in zip(("first", "second"), pair, strict=True):
        rng = np.random.default_rng(0)
        scores = scored.honest_scores
        low, high = bootstrap_auc(labels, scores, groups, rng=rng, num_samples=num_samples)
        figures[name] = {"auc": roc_auc(labels, scores), "interval": [low, high]}
        print(f"{name:<24}{roc_auc(labels, scores):>8.4f}  {low:.4f} to {high:.4f}")
    first, second = (scored.honest_scores for scored in pair)
    difference = roc_auc(labels, second) - roc_auc(labels, first)
    interval = paired_bootstrap(
        labels, first, second, groups, rng=np.random.default_rng(0), num_samples=num_samples
    ).interval
    figures["difference"] = {"auc": difference, "interval": [*interval]}
    print(
        f"{'second less first':<24}{difference:>+8.4f}  {interval.low:+.4f} to {interval.high:+.4f}"
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
