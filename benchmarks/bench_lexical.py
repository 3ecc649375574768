"""What counting ids alone reaches: TF-IDF and logistic regression on a run's own folds.

    python benchmarks/bench_lexical.py [--data DIR] [--labels FILE] [--all-folds] [--closure]
        [--quick]

The features of a pair are the product and the absolute difference of its texts' TF-IDF vectors.
The AUC is of the fold that a run with the same --folds holds out, and of the test where its labels
are given. With --all-folds every fold of components is held out in turn, and beside them as many
rows drawn one by one: where those are told apart better, components are a lower bound for a test
that was split off row by row. With --closure a tenth of the rows is held out one by one, and what
follows for them from the others (a = b and b = c give a = c) is added to the model's logits, as
--predict.closure does for a test. The last line has the same figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from desmatch.data.closure import UNKNOWN
from desmatch.data.evidence import TextPairs, answer, weigh_answers
from desmatch.evaluate import read_labels
from desmatch.intake import ROLES, find_sources
from desmatch.metrics.intervals import bootstrap_auc, paired_bootstrap
from desmatch.metrics.roc import roc_auc
from desmatch.prepare import Prepared, prepare, training_mask
from desmatch.recipe import Recipe, ValidationConfig

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray


def pair_features(vectorizer: TfidfVectorizer, rows: Dataset) -> Any:  # noqa: ANN401 - sparse
    """Return (rows, 2 * ids), sparse: product and absolute difference of both texts' vectors."""
    a, b = (vectorizer.transform(rows[side]) for side in ("a", "b"))
    return hstack([a.multiply(b), abs(a - b)]).tocsr()


class Lexical(NamedTuple):
    """All rows as features, and the folds a run would make.

    Attributes:
        train: (B, 2 * ids), sparse.
        test: (T, 2 * ids), sparse.
        prepared: Labels, folds and texts.
    """

    train: Any
    test: Any
    prepared: Prepared


def read_features(data: Path, folds: int) -> Lexical:
    """Prepare the files as a run does and weigh the ids of all of them."""
    recipe = Recipe(validation=ValidationConfig(num_folds=folds))
    with tempfile.TemporaryDirectory() as folder:
        prepare(find_sources(data), recipe, Path(folder))
        prepared = Prepared.load(Path(folder))
        texts = [
            text for role in ROLES for side in ("a", "b") for text in prepared.rows[role][side]
        ]
        vectorizer = TfidfVectorizer(token_pattern=r"\S+").fit(texts)
        train, test = (pair_features(vectorizer, prepared.rows[role]) for role in ROLES[:2])
    return Lexical(train, test, prepared)


def fit(lexical: Lexical, rows: NDArray[np.int64]) -> LogisticRegression:
    """Fit on the given labelled rows."""
    labels = lexical.prepared.train_column("label")
    return LogisticRegression(max_iter=1000).fit(lexical.train[rows], labels[rows])


def first_fold(lexical: Lexical, labels_file: Path | None, max_rows: int) -> dict[str, Any]:
    """Fit on the rows outside the first fold; return the figures of the fold and of the test."""
    prepared = lexical.prepared
    labels = prepared.train_column("label")
    model = fit(lexical, np.flatnonzero(training_mask(prepared, 0))[:max_rows])
    held_out = np.flatnonzero(prepared.train_column("fold") == 0)
    scores = model.decision_function(lexical.train[held_out])
    groups = prepared.train_column("group")[held_out]
    interval = bootstrap_auc(labels[held_out], scores, groups, rng=np.random.default_rng(0))
    figures = {
        "validation_auc": roc_auc(labels[held_out], scores),
        "validation_interval": [*interval],
        "validation_rows": len(held_out),
    }
    if labels_file is not None:
        test_scores = model.decision_function(lexical.test)
        test_labels = read_labels(labels_file, expected_rows=len(test_scores))
        figures["test_auc"] = roc_auc(test_labels, test_scores)
    return figures


def all_folds(lexical: Lexical, folds: int, max_rows: int) -> list[dict[str, float]]:
    """Hold out every fold of components, and draws of as many rows one by one."""
    prepared = lexical.prepared
    labels, fold = prepared.train_column("label"), prepared.train_column("fold")
    graph = prepared.graph("train")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(folds):
        at_random = np.zeros(len(labels), bool)
        at_random[rng.permutation(len(labels))[: (fold == number).sum()]] = True
        line: dict[str, float] = {"fold": number}
        for name, held_out, may_train in (
            ("components", fold == number, training_mask(prepared, number)),
            ("rows", at_random, ~at_random),
        ):
            model = fit(lexical, np.flatnonzero(may_train)[:max_rows])
            scores = model.decision_function(lexical.train[held_out])
            line[name] = roc_auc(labels[held_out], scores)
            texts = np.concatenate([graph.a[may_train], graph.b[may_train]])
            known = np.isin(graph.a[held_out], texts) | np.isin(graph.b[held_out], texts)
            line[f"{name}_known"] = float(known.mean())
        lines.append(line)
    return lines


def closure_effect(lexical: Lexical, max_rows: int) -> dict[str, Any]:
    """Score rows held out one by one without and with what follows from the other rows."""
    prepared, rng = lexical.prepared, np.random.default_rng(0)
    labels, graph = prepared.train_column("label"), prepared.graph("train")
    held_out = rng.permutation(len(labels)) < len(labels) / 10
    pairs = TextPairs(graph.a, graph.b)
    given = pairs.take(~held_out), labels[~held_out]
    evidence = weigh_answers(*given, rng=rng)
    answers = answer(*given, pairs.take(held_out))
    is_answered = answers != UNKNOWN
    truth, groups = labels[held_out], graph.pair_component[held_out]
    model = fit(lexical, np.flatnonzero(~held_out)[:max_rows])
    plain = model.decision_function(lexical.train[held_out])
    helped = plain + evidence.logits(answers)
    return {
        "rows": len(truth),
        "answered": int(is_answered.sum()),
        "right": int((answers == truth)[is_answered].sum()),
        "log_likelihood_ratios": [*evidence.ratios],
        "auc": roc_auc(truth, plain),
        "auc_with_closure": roc_auc(truth, helped),
        "difference": [*paired_bootstrap(truth, plain, helped, groups, rng=rng).interval],
    }


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/sample"))
    parser.add_argument("--labels", type=Path, help="labels of the test, one a line")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--all-folds", action="store_true", help="hold out every fold in turn")
    parser.add_argument("--closure", action="store_true", help="what follows from other rows")
    parser.add_argument("--quick", action="store_true", help="fit on 2,000 rows")
    options = parser.parse_args()
    max_rows = 2000 if options.quick else 10**9
    started = time.perf_counter()
    lexical = read_features(options.data, options.folds)
    figures = first_fold(lexical, options.labels, max_rows)
    low, high = figures["validation_interval"]
    print(f"{'figure':<28} value")
    print(f"{'validation AUC':<28} {figures['validation_auc']:.4f} ({low:.4f} to {high:.4f})")
    if "test_auc" in figures:
        print(f"{'test AUC':<28} {figures['test_auc']:.4f}")
    if options.all_folds:
        figures["folds"] = all_folds(lexical, options.folds, max_rows)
        print(
            f"\n{'fold':<6}{'AUC, components':>17}{'AUC, rows':>12}{'rows with a known query':>25}"
        )
        for line in figures["folds"]:
            print(f"{line['fold']:<6}{line['components']:>17.4f}{line['rows']:>12.4f}"
                  f"{line['rows_known']:>25.1%}")  # fmt: skip
        means = {name: np.mean([line[name] for line in figures["folds"]])
                 for name in ("components", "rows", "rows_known")}  # fmt: skip
        print(f"{'mean':<6}{means['components']:>17.4f}{means['rows']:>12.4f}"
              f"{means['rows_known']:>25.1%}")  # fmt: skip
    if options.closure:
        figures["closure"] = found = closure_effect(lexical, max_rows)
        low, high = found["difference"]
        print(f"\n{found['rows']} rows held out one by one; {found['answered']} of them follow "
              f"from the others, {found['right']} rightly")  # fmt: skip
        print(f"{'AUC':<28} {found['auc']:.4f}")
        print(f"{'AUC with closure':<28} {found['auc_with_closure']:.4f} "
              f"(difference {low:+.4f} to {high:+.4f})")  # fmt: skip
    figures["seconds"] = time.perf_counter() - started
    print(f"{'time (s)':<28} {figures['seconds']:.1f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
