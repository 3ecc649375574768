"""What counting ids alone reaches: TF-IDF and logistic regression on a run's own folds.

    python benchmarks/bench_lexical.py [--data DIR] [--labels FILE] [--quick]

The features of a pair are the product and the absolute difference of its texts' TF-IDF vectors.
The AUC is of the fold that a run with the same --folds holds out, and of the test where its labels
are given. The last line has the same figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from desmatch.evaluate import read_labels
from desmatch.metrics.intervals import bootstrap_auc
from desmatch.metrics.roc import roc_auc
from desmatch.prepare import ROLES, Prepared, find_sources, prepare, training_mask
from desmatch.recipe import Recipe, ValidationConfig

if TYPE_CHECKING:
    from datasets import Dataset


def pair_features(vectorizer: TfidfVectorizer, rows: Dataset) -> Any:  # noqa: ANN401 - sparse
    """Return (rows, 2 * ids), sparse: product and absolute difference of both texts' vectors."""
    a, b = (vectorizer.transform(rows[side]) for side in ("a", "b"))
    return hstack([a.multiply(b), abs(a - b)]).tocsr()


def measure(data: Path, folds: int, labels_file: Path | None, max_rows: int) -> dict[str, Any]:
    """Fit on the rows outside the first fold; return the figures."""
    recipe = Recipe(validation=ValidationConfig(num_folds=folds))
    with tempfile.TemporaryDirectory() as folder:
        prepare(find_sources(data), recipe, Path(folder))
        prepared = Prepared.load(Path(folder))
        started = time.perf_counter()
        texts = [
            text for role in ROLES for side in ("a", "b") for text in prepared.rows[role][side]
        ]
        vectorizer = TfidfVectorizer(token_pattern=r"\S+").fit(texts)
        features = pair_features(vectorizer, prepared.rows["train"])
        labels = prepared.train_column("label")
        fit_rows = np.flatnonzero(training_mask(prepared, 0))[:max_rows]
        model = LogisticRegression(max_iter=1000).fit(features[fit_rows], labels[fit_rows])
        held_out = np.flatnonzero(prepared.train_column("fold") == 0)
        scores = model.decision_function(features[held_out])
        groups = prepared.train_column("group")[held_out]
        interval = bootstrap_auc(labels[held_out], scores, groups, rng=np.random.default_rng(0))
        figures = {
            "validation_auc": roc_auc(labels[held_out], scores),
            "validation_interval": [*interval],
            "validation_rows": len(held_out),
        }
        if labels_file is not None:
            test_scores = model.decision_function(pair_features(vectorizer, prepared.rows["test"]))
            test_labels = read_labels(labels_file, expected_rows=len(test_scores))
            figures["test_auc"] = roc_auc(test_labels, test_scores)
    return {**figures, "seconds": time.perf_counter() - started}


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/sample"))
    parser.add_argument("--labels", type=Path, help="labels of the test, one a line")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="fit on 2,000 rows")
    options = parser.parse_args()
    max_rows = 2000 if options.quick else 10**9
    figures = measure(options.data, options.folds, options.labels, max_rows)
    low, high = figures["validation_interval"]
    print(f"{'figure':<28} value")
    print(f"{'validation AUC':<28} {figures['validation_auc']:.4f} ({low:.4f} to {high:.4f})")
    if "test_auc" in figures:
        print(f"{'test AUC':<28} {figures['test_auc']:.4f}")
    print(f"{'time (s)':<28} {figures['seconds']:.1f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
