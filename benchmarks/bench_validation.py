"""Whether the interval a run claims holds the score of a test that it has not seen.

    python benchmarks/bench_validation.py [--data DIR] [--quick]
    python benchmarks/bench_validation.py --leaky | --drifted | --speed [--quick]

Twenty times another part of the labelled rows, drawn row by row and as large a share of all as the
real test is, is put aside as a test. The others are prepared as a run prepares them: folds of whole
components, rows held out at random where the test shares queries, weights against drift. A cheap
model (TF-IDF and logistic regression) is fitted on what may train, the interval is claimed from
what was held out, and then the labels of the test are looked at.

--leaky: rows of hubs whose labels are the hub's noise, and a test of new queries; the claim of a
random split of rows beside ours. --drifted: tests of longer texts and new queries, at several
strengths; the error of the plain AUC and of the weighted one. --speed: seconds of 1,000 bootstraps
of 400,000 pairs. The last line has the same figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bench_lexical import pair_features
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from validation_cases import Case, drifted, leaky, read_rows, row_by_row

from desmatch.claim import RandomRows
from desmatch.data.split import RANDOM
from desmatch.evaluate import Scored, validation_figures
from desmatch.intake import Sources
from desmatch.metrics.intervals import bootstrap_auc, prediction_interval
from desmatch.metrics.roc import roc_auc
from desmatch.prepare import Prepared, has_known_query, prepare, training_mask
from desmatch.recipe import Recipe, ValidationConfig
from desmatch.runs import generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MANY_KNOWN = 0.05
"""Above this share of known queries rows are held out at random too, as the card advises."""

RANDOM_SHARE = 0.1
"""Share of the rows that is held out at random then."""

DRIFT_COLUMNS = ("strength", "drift_auc", "drift_low", "plain_error", "weighted_error",
                 "plain_bias", "weighted_bias", "nearer", "inside")  # fmt: skip
"""AUC of telling the test apart and the low end of its interval; mean absolute and mean error of
both; repetitions in which the weighted one is nearer, and in which the claim holds the truth."""

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Of the drift of lengths, from none on."""


Use = Callable[["Lexical", Recipe, Case], dict[str, Any]]
"""What is done with a case that is prepared."""


class Lexical:
    """A cheap model of pairs: TF-IDF and logistic regression."""

    def __init__(self, prepared: Prepared, *, longest: int = 1) -> None:
        """Turn all rows into features; n-grams up to `longest` ids remember whole texts."""
        self.prepared = prepared
        rows = prepared.rows
        texts = [text for role in ("train", "test") for side in "ab" for text in rows[role][side]]
        vectorizer = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, longest)).fit(texts)
        self.labels = prepared.train_column("label")
        self.train = pair_features(vectorizer, rows["train"])
        self.test = pair_features(vectorizer, rows["test"])
        self.strength = 1.0 if longest == 1 else 30.0

    def fit(self, rows: NDArray[np.bool_]) -> LogisticRegression:
        """Fit on some labelled rows."""
        model = LogisticRegression(C=self.strength, max_iter=300)
        return model.fit(self.train[rows], self.labels[rows])


def prepare_case(case: Case, recipe: Recipe, folder: Path) -> Prepared:
    """Write a case as files of a contest, prepare them as a run does, and load the result."""
    labelled, test = folder / "train.tsv", folder / "test.tsv"
    rows = zip(case.labelled.a, case.labelled.b, case.labelled.labels, strict=True)
    labelled.write_text("".join(f"{a}\t{b}\t{label}\n" for a, b, label in rows), "utf-8")
    pairs = zip(case.test.a, case.test.b, strict=True)
    test.write_text("".join(f"{a}\t{b}\n" for a, b in pairs), "utf-8")
    prepared = folder / "prepared"
    prepared.mkdir()
    prepare(Sources((labelled,), test), recipe, prepared)
    return Prepared.load(prepared)


def held_out(lexical: Lexical, model: LogisticRegression, rows: NDArray[np.int64]) -> Scored:
    """Score rows that were held out by components."""
    prepared = lexical.prepared
    logits = model.decision_function(lexical.train[rows])
    scores = expit(logits)
    fold, labels, groups, weights = (
        prepared.train_column(name)[rows] for name in ("fold", "label", "group", "weight")
    )
    return Scored(rows, fold, labels, groups, weights, logits, logits, scores, scores)


def held_out_at_random(lexical: Lexical, model: LogisticRegression, fold: int) -> RandomRows | None:
    """Score rows that were held out one by one, if there are some."""
    prepared = lexical.prepared
    rows = np.flatnonzero(prepared.train_column("fold") == RANDOM)
    if not len(rows):
        return None
    labels, groups, weights = (
        prepared.train_column(name)[rows] for name in ("label", "group", "weight")
    )
    return RandomRows(
        labels=labels,
        scores=expit(model.decision_function(lexical.train[rows])),
        groups=groups,
        has_known_query=has_known_query(prepared, "train", [fold])[rows],
        known_share=float(has_known_query(prepared, "test", [fold]).mean()),
        weights=weights,
    )


def claim(lexical: Lexical, recipe: Recipe, case: Case) -> dict[str, Any]:
    """Return the figures a run would claim of a case, and the test's true AUC as `truth`."""
    prepared, fold = lexical.prepared, recipe.validation.fold
    model = lexical.fit(training_mask(prepared, fold))
    drift = prepared.figures["drift"]
    figures = validation_figures(
        held_out(lexical, model, np.flatnonzero(prepared.train_column("fold") == fold)),
        recipe,
        test_size=len(case.test.labels),
        drift=drift,
        random_rows=held_out_at_random(lexical, model, fold),
    )
    truth = roc_auc(case.test.labels, model.decision_function(lexical.test))
    return {**figures, "drift": drift, "known_share": case.known_share, "truth": truth}


def claim_of_random_rows(lexical: Lexical, recipe: Recipe, case: Case) -> dict[str, Any]:
    """Return what a split of single rows would claim, and the test's true AUC."""
    rng = generator(recipe.seed, "naive")
    is_held_out = rng.random(len(lexical.labels)) < 1 / recipe.validation.num_folds
    model = lexical.fit(~is_held_out)
    labels, scores = (
        lexical.labels[is_held_out],
        model.decision_function(lexical.train[is_held_out]),
    )
    interval = prediction_interval(
        labels, scores, np.arange(len(labels)), test_size=len(case.test.labels), rng=rng
    )
    truth = roc_auc(case.test.labels, model.decision_function(lexical.test))
    return {"value": roc_auc(labels, scores), "interval": [*interval], "truth": truth}


def both_claims(lexical: Lexical, recipe: Recipe, case: Case) -> dict[str, Any]:
    """Return our claim and that of a split of single rows."""
    found = claim(lexical, recipe, case)
    ours = {name: found["headline"][name] for name in ("value", "interval")}
    rows = claim_of_random_rows(lexical, recipe, case)
    return {"components": {**ours, "truth": found["truth"]}, "rows": rows}


def prepared_case(case: Case, seed: int, use: Use, *, longest: int = 1) -> dict[str, Any]:
    """Prepare a case and use the features of its rows."""
    share = RANDOM_SHARE if case.known_share > MANY_KNOWN else 0.0
    recipe = Recipe(seed=seed, validation=ValidationConfig(random_share=share))
    with tempfile.TemporaryDirectory() as folder:
        return use(Lexical(prepare_case(case, recipe, Path(folder)), longest=longest), recipe, case)


def claim_text(value: float, interval: Sequence[float], truth: float) -> str:
    """Return the columns of a claim and whether the truth lies inside."""
    numbers = "".join(f"{each:>9.4f}" for each in (value, *interval, truth))
    return f"{numbers}  {'yes' if holds(interval, truth) else 'no'}"


def holds(interval: Sequence[float], truth: float) -> bool:
    """Return whether a value lies in an interval."""
    return interval[0] <= truth <= interval[1]


def coverage(data: Path, repetitions: int) -> dict[str, Any]:
    """Put other labelled rows aside as a test, again and again; print a row each."""
    rows = read_rows(data / "train.tsv")
    num_test = sum(1 for _ in (data / "test.tsv").open())
    share = num_test / (num_test + len(rows.labels))
    print(f"{len(rows.labels)} labelled rows, {share:.1%} of them a test")
    print(f"{'no.':>4}{'figure':>20}{'claim':>9}{'from':>9}{'to':>9}{'truth':>9}  inside")
    lines = []
    for number in range(repetitions):
        case = row_by_row(rows, share, generator(number, "test"))
        found = prepared_case(case, number, claim)
        best, truth = found["headline"], found["truth"]
        is_inside = holds(best["interval"], truth)
        text = claim_text(best["value"], best["interval"], truth)
        print(f"{number:>4}{best['name']:>20}{text}", flush=True)
        lines.append({
            "figure": best["name"], "claim": best["value"], "interval": best["interval"],
            "truth": truth, "is_inside": is_inside, "plain": found["auc"],
            "plain_is_inside": holds(found["test_interval"], truth),
            "known_share": found["known_share"], "drift": found["drift"]["interval"],
        })  # fmt: skip
    inside = sum(line["is_inside"] for line in lines)
    width = np.mean([line["interval"][1] - line["interval"][0] for line in lines])
    bias = np.mean([line["truth"] - line["claim"] for line in lines])
    print(f"inside: {inside} of {repetitions}; mean width {width:.4f}; "
          f"truth less claim, mean: {bias:+.4f}")  # fmt: skip
    return {"data": data.name, "inside": inside, "repetitions": lines}


def leaks(repetitions: int, num_rows: int) -> dict[str, Any]:
    """Compare a random split's claim with ours where queries are remembered; print a row each."""
    print(f"{'no.':>4}{'split':>12}{'claim':>9}{'from':>9}{'to':>9}{'truth':>9}  inside")
    lines = []
    for number in range(repetitions):
        case = leaky(num_rows, generator(number, "leaky"))
        found = prepared_case(case, number, both_claims, longest=3)
        for name, each in found.items():
            is_inside = holds(each["interval"], each["truth"])
            text = claim_text(each["value"], each["interval"], each["truth"])
            print(f"{number:>4}{name:>12}{text}", flush=True)
            lines.append({"split": name, **each, "is_inside": is_inside})
    inside = {name: sum(line["is_inside"] for line in lines if line["split"] == name)
              for name in ("components", "rows")}  # fmt: skip
    print(f"inside, of {repetitions}: components {inside['components']}, rows {inside['rows']}")
    return {"inside": inside, "repetitions": lines}


def drifts(repetitions: int, num_rows: int) -> dict[str, Any]:
    """Compare the plain AUC and the weighted one by their errors; print a row a strength."""
    print("".join(f"{name:>16}" for name in DRIFT_COLUMNS))
    lines = []
    for strength in STRENGTHS:
        found = []
        for number in range(repetitions):
            case = drifted(num_rows, strength, generator(number, "drifted"))
            found.append(prepared_case(case, number, claim))
        plain, weighted = (
            np.array([each[name] - each["truth"] for each in found])
            for name in ("auc", "weighted_auc")
        )
        line = {
            "strength": strength,
            "drift_auc": float(np.mean([each["drift"]["auc"] for each in found])),
            "drift_low": float(np.mean([each["drift"]["interval"][0] for each in found])),
            "plain_error": float(np.abs(plain).mean()),
            "weighted_error": float(np.abs(weighted).mean()),
            "plain_bias": float(plain.mean()),
            "weighted_bias": float(weighted.mean()),
            "nearer": int((np.abs(weighted) < np.abs(plain)).sum()),
            "inside": sum(holds(each["interval"], each["truth"]) for each in found),
        }
        print("".join(f"{line[name]:>16.4g}" for name in DRIFT_COLUMNS), flush=True)
        lines.append(line)
    return {"repetitions": repetitions, "strengths": lines}


def speed(num_rows: int) -> dict[str, Any]:
    """Time the intervals of isolated pairs and of components of two pairs in the mean."""
    rng = np.random.default_rng(0)
    labels = (rng.random(num_rows) < 0.4).astype(np.int8)
    scores = labels + rng.normal(0, 1.3, num_rows)
    print(f"{'components':>11}{'interval':>22}{'seconds':>9}{'processor s':>13}")
    lines = []
    for num_components in (num_rows, num_rows // 2):
        groups = rng.integers(num_components, size=num_rows)
        groups = np.arange(num_rows) if num_components == num_rows else groups
        rows = labels, scores, groups
        intervals: dict[str, Callable[[], object]] = {
            "of the validation": partial(bootstrap_auc, *rows, rng=rng),
            "of a test": partial(prediction_interval, *rows, test_size=num_rows, rng=rng),
        }
        for name, find in intervals.items():
            started = time.perf_counter(), time.process_time()
            find()
            seconds = time.perf_counter() - started[0], time.process_time() - started[1]
            print(
                f"{num_components:>11}{name:>22}{seconds[0]:>9.2f}{seconds[1]:>13.2f}", flush=True
            )
            lines.append({"components": num_components, "interval": name, "seconds": seconds[0],
                          "processor_seconds": seconds[1]})  # fmt: skip
    return {"rows": num_rows, "bootstraps": 1000, "timings": lines}


def main() -> None:
    """Print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/sample"))
    parser.add_argument("--repetitions", type=int, default=20)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--leaky", action="store_true", help="a random split beside ours")
    modes.add_argument("--drifted", action="store_true", help="the weighted AUC beside the plain")
    modes.add_argument("--speed", action="store_true", help="seconds of 1,000 bootstraps")
    parser.add_argument("--quick", action="store_true", help="two repetitions of few rows")
    options = parser.parse_args()
    repetitions = 2 if options.quick else options.repetitions
    num_rows = 2000 if options.quick else 8000
    if options.leaky:
        figures = leaks(repetitions, num_rows)
    elif options.drifted:
        figures = drifts(repetitions, num_rows)
    elif options.speed:
        figures = speed(20_000 if options.quick else 400_000)
    else:
        figures = coverage(options.data, repetitions)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
