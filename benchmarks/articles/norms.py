"""Why pre-norm ends below post-norm: kexue.fm/archives/9009 on our own encoder.

    python benchmarks/articles/norms.py [--quick]

48 layers at their start: pre-norm sums terms of one size, so that each changes its input less than
the one before, as t^(-1/2), and the last layers see nearly the same; post-norm's layers all change
it alike. Then the article's conclusion, which is a hypothesis: post-norm ends better after
pretraining and fine-tuning. Both are trained on the bundled sample by the recipe `demo` with a
narrower model and fewer epochs, each with the warm-up that is its default. The last line has all
figures as JSON.
"""

from __future__ import annotations

import math
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch.nn.functional as F
from probes import fresh_model, layer_states, log_log_slope, random_ids
from scipy.stats import t as student
from tables import Line, Table, run_experiments

from desmatch.evaluate import Scored, read_scored
from desmatch.intake import find_sources
from desmatch.metrics.intervals import Interval, weighted_auc
from desmatch.metrics.roc import roc_auc
from desmatch.pipeline import execute
from desmatch.recipe_file import load_recipe, recipe_path
from desmatch.runs import VALIDATION
from desmatch.stages import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LAYERS = 48
SEEDS = (0, 1, 2)
SAMPLE = Path(__file__).parents[2] / "data" / "sample"

OPTIONS = (
    "--model.num_hidden_layers=4",
    "--model.hidden_size=64",
    "--model.intermediate_size=256",
    "--model.position=rotary",
    "--pretrain.learning_rate=0.002",
    "--pretrain.num_evaluations=1",
    "--finetune.num_evaluations=1",
    "--finetune.keep=last",
    "--machine.num_threads=1",
)
"""What differs from the recipe `demo`, the epochs aside; no weights are chosen by their AUC."""


def depth_slope(states: Tensor) -> float:
    """Return the log-log slope over t of ||x_t - x_(t-1)|| / ||x_(t-1)||, the mean over tokens.

    Args:
        states: (T + 1, N, D), what enters the first layer, then what leaves each.
    """
    changes = (states[1:] - states[:-1]).norm(dim=-1) / states[:-1].norm(dim=-1)  # (T, N)
    return log_log_slope(range(1, len(states)), changes.mean(dim=1).tolist())


def last_cosine(states: Tensor) -> float:
    """Return the cosine of the last two layers' outputs, the mean over tokens."""
    return float(F.cosine_similarity(states[-1], states[-2], dim=-1).mean())


def start_states(norm: str, seed: int) -> Tensor:
    """Return what passes through 48 layers at their start."""
    model = fresh_model(layers=LAYERS, norm=norm, initialization="arithmetic", seed=seed)
    return layer_states(model, random_ids(seed=seed))


def start_table(quick: bool) -> Table:
    """Measure what layers change, deep down and high up."""
    seeds = SEEDS[:1] if quick else SEEDS
    lines = []
    for norm, slope, at_least, at_most, cosine in (
        ("pre", -0.54, -math.inf, -0.4, 0.99),
        ("post", 0.0, -0.1, 0.1, 0.57),
    ):
        states = [start_states(norm, seed) for seed in seeds]
        lines += [
            Line(figure=f"{norm}: slope of a layer's relative change over its depth",
                 measured=[depth_slope(each) for each in states], expected=slope,
                 at_least=at_least, at_most=at_most),
            Line(figure=f"{norm}: cosine of the last two layers' outputs", unit="cosine",
                 measured=[last_cosine(each) for each in states], expected=cosine),
        ]  # fmt: skip
    return Table(lines, f"{LAYERS} layers of 64, Xavier's start, random ids in rows of 32.")


class Rivals(NamedTuple):
    """The rows that a seed holds out, scored by either model."""

    post: Scored
    pre: Scored

    @property
    def difference(self) -> float:
        """AUC of post minus AUC of pre."""
        return held_out_auc(self.post) - held_out_auc(self.pre)


def held_out_auc(scored: Scored) -> float:
    """Return the AUC of the weights that are kept."""
    return roc_auc(scored.labels, scored.scores)


def train_both(seed: int, epochs: Sequence[float]) -> Rivals:
    """Run the recipe with either norm up to its predictions.

    Args:
        seed: Of the folds, the start and the batches, the same for both.
        epochs: Of the joint stage and of the last one.
    """
    stages = zip(("pretrain", "finetune"), epochs, strict=True)
    lengths = [f"--{stage}.num_train_epochs={value}" for stage, value in stages]
    scored = []
    for norm in Rivals._fields:
        words = [f"--seed={seed}", f"--model.norm={norm}", *OPTIONS, *lengths]
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
            run = Run(Path(folder), load_recipe(recipe_path("demo"), words), find_sources(SAMPLE))
            for stage in ("prepare", "pretrain", "finetune", "predict"):
                execute(run, only=stage)
            scored.append(read_scored(run.folder / "predictions" / VALIDATION))
    return Rivals(*scored)


def rows_interval(rivals: Sequence[Rivals], *, num_samples: int = 1000) -> Interval:
    """Return the 95 % interval of the mean difference over resampled components of held-out rows.

    The trained models are taken as they are. Both models of a seed see the same resampled rows.
    """
    rng = np.random.default_rng(0)
    total = np.zeros(num_samples)
    for post, pre in rivals:
        names, groups = np.unique(post.groups, return_inverse=True)
        aucs = [weighted_auc(each.labels, each.scores, groups) for each in (post, pre)]
        for sample in range(num_samples):
            weights = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
            total[sample] += aucs[0](weights) - aucs[1](weights)
    low, high = np.quantile(total / len(rivals), (0.025, 0.975))
    return Interval(float(low), float(high))


def seeds_interval(differences: Sequence[float]) -> Interval:
    """Return Student's 95 % interval of the mean over seeds: another training, other rows."""
    half = student.ppf(0.975, len(differences) - 1) * np.std(differences, ddof=1)
    half /= math.sqrt(len(differences))
    mean = float(np.mean(differences))
    return Interval(mean - half, mean + half)


def rival_table(quick: bool) -> Table:
    """Train post and pre on the sample and compare them on held-out rows."""
    seeds, epochs = (SEEDS[:2], (0.1, 0.2)) if quick else (SEEDS, (6.0, 6.0))
    rivals = [train_both(seed, epochs) for seed in seeds]
    differences = [each.difference for each in rivals]
    rows, trainings = rows_interval(rivals), seeds_interval(differences)
    return Table([
        Line(figure="post: AUC", unit="AUC", measured=[held_out_auc(each.post) for each in rivals]),
        Line(figure="pre: AUC", unit="AUC", measured=[held_out_auc(each.pre) for each in rivals]),
        Line(figure="post minus pre", unit="AUC", measured=differences),
        Line(figure="low end, 95 %, over held-out rows", unit="AUC", measured=rows.low),
        Line(figure="high end, 95 %, over held-out rows", unit="AUC", measured=rows.high),
        Line(figure="low end, 95 %, over seeds (Student)", unit="AUC", measured=trainings.low),
        Line(figure="high end, 95 %, over seeds (Student)", unit="AUC", measured=trainings.high),
    ], f"4 layers of 64, {epochs[0]:g} joint epochs and {epochs[1]:g} on labels, seeds "
       f"{', '.join(map(str, seeds))}; the same rate for both, not tuned, and both still "
       "rising. The article expects a positive difference and names no number.")  # fmt: skip


def main() -> None:
    """Print the tables and the line of JSON."""
    assert __doc__ is not None
    run_experiments(__doc__, {
        "9009: 48 layers at their start": start_table,
        "9009: post against pre on the sample": rival_table,
    })  # fmt: skip


if __name__ == "__main__":
    main()
