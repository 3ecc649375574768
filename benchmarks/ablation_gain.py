"""Gains of the ablation: paired over rows, the mean over seeds, with both sources of error.

Shapes: S seeds, B held-out rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import stats

from desmatch.metrics.intervals import weighted_auc
from desmatch.metrics.roc import roc_auc
from desmatch.runs import generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Scores = dict[int, tuple[dict[str, "NDArray[Any]"], float]]
"""Seed to the held-out rows' columns row, label, group, honest_score, and the run's minutes."""

NUM_SAMPLES = 1000
LEVEL = 0.95


class Gain(NamedTuple):
    """How much higher an AUC is, and between what bounds."""

    mean: float
    low: float
    high: float


def paired_gain(
    labels: NDArray[np.int8],
    groups: NDArray[np.int64],
    first: Sequence[NDArray[np.float64]],
    second: Sequence[NDArray[np.float64]],
) -> Gain:
    """Return the mean over seeds of AUC(second) - AUC(first), with a 95 % interval.

    Two errors are joined: of the rows, by a bootstrap of whole components that is the same for all
    seeds, and of the seeds, by the deviation of their differences over sqrt(S); Student's t with
    Welch's and Satterthwaite's degrees of freedom. One seed alone shows the rows' error only.

    Args:
        labels: (B,), 0 or 1.
        groups: (B,), each row's component.
        first: S times (B,), scores of the reference.
        second: S times (B,), of the technique, the same seeds.
    """
    differences = [
        roc_auc(labels, b) - roc_auc(labels, a) for a, b in zip(first, second, strict=True)
    ]
    numbered = np.unique(groups, return_inverse=True)[1]
    aucs = [
        tuple(weighted_auc(labels, each, numbered) for each in pair)
        for pair in zip(first, second, strict=True)
    ]
    rng = generator(0, "ablation")
    draws = (rng.poisson(1, numbered.max() + 1).astype(float) for _ in range(NUM_SAMPLES))
    resampled = [np.mean([b(drawn) - a(drawn) for a, b in aucs]) for drawn in draws]
    of_rows, mean = float(np.nanvar(resampled)), float(np.mean(differences))
    count = len(differences)
    of_seeds = float(np.var(differences, ddof=1)) / count if count > 1 else 0.0
    variance = of_rows + of_seeds
    freedom = variance**2 / (of_seeds**2 / (count - 1)) if of_seeds else np.inf
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    return Gain(mean, mean - reach, mean + reach)


def table_of(scores: Mapping[str, Scores], *, reference: str = "reference") -> list[dict[str, Any]]:
    """Return a line for the reference and each technique, the best gain first.

    Args:
        scores: Name to what its runs say, the reference's among them.
        reference: Its name.
    """
    own = scores.get(reference, {})
    if not own:
        return []
    lines = [_line(name, found, own) for name, found in scores.items() if name != reference]
    known = [line for line in lines if line["seeds"]]
    aucs = [roc_auc(columns["label"], columns["honest_score"]) for columns, _ in own.values()]
    first = {"name": reference, "seeds": len(own), "auc": float(np.mean(aucs)),
             "minutes": float(np.mean([minutes for _, minutes in own.values()])),
             "verdict": ""}  # fmt: skip
    return [first, *sorted(known, key=lambda line: -line["gain"])]


def _line(name: str, found: Scores, reference: Scores) -> dict[str, Any]:
    seeds = sorted(found.keys() & reference.keys())
    if not seeds:
        return {"name": name, "seeds": 0}
    for seed in seeds:
        if not np.array_equal(found[seed][0]["row"], reference[seed][0]["row"]):
            raise ValueError(f"{name}, seed {seed}: other rows than the reference's")
    columns = reference[seeds[0]][0]
    first, second = (
        [each[seed][0]["honest_score"] for seed in seeds] for each in (reference, found)
    )
    gain = paired_gain(columns["label"], columns["group"], first, second)
    extra = [found[seed][1] - reference[seed][1] for seed in seeds]
    return {
        "name": name,
        "seeds": len(seeds),
        "auc": float(np.mean([roc_auc(columns["label"], each) for each in second])),
        "gain": gain.mean,
        "interval": [gain.low, gain.high],
        "extra_minutes": float(np.mean(extra)),
        "verdict": _verdict(gain, len(seeds)),
    }


def _verdict(gain: Gain, num_seeds: int) -> str:
    if num_seeds < 2:
        return "one seed"
    if gain.low > 0:
        return "helps"
    return "hurts" if gain.high < 0 else "noise"


def to_markdown(figures: Mapping[str, Any]) -> str:
    """Return the tables of both questions as Markdown."""
    titles = {
        "alone": "## Each technique alone, on top of the reference",
        "together": "## Techniques together, against the reference",
        "less_each": "## All that help, less each of them, against the whole set",
    }
    parts = ["# What each technique is worth\n", NOTE]
    for key, title in titles.items():
        if figures[key]:
            parts += [f"\n{title}\n", _table(figures[key])]
    return "\n".join(parts) + "\n"


NOTE = """Made by `make ablation`; how, and what each name stands for: `ablation.py` and
`ablation_techniques.py` beside this file. Gain: of the AUC on held-out rows, in points (0.01),
paired with the reference, mean over seeds, with a 95 % interval of rows and seeds. Minutes are of
the training of a run, on one core that other work may have shared. *Noise*: the interval holds 0,
and the technique stays off by default. The set of those
that help was chosen on the rows that judge it, so its gain flatters a little."""


def _table(lines: Sequence[Mapping[str, Any]]) -> str:
    head = ["| technique | seeds | AUC | gain, points | 95 % interval | extra minutes | verdict |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    return "\n".join([*head, *(_row(line) for line in lines)])


def _row(line: Mapping[str, Any]) -> str:
    if "gain" not in line:
        return (f"| {line['name']} | {line['seeds']} | {line['auc']:.4f} | | | "
                f"({line['minutes']:.1f} in all) | |")  # fmt: skip
    low, high = (f"{100 * bound:+.2f}" for bound in line["interval"])
    return (
        f"| {line['name']} | {line['seeds']} | {line['auc']:.4f} | {100 * line['gain']:+.2f} | "
        f"{low} to {high} | {line['extra_minutes']:+.1f} | {line['verdict']} |"
    )
