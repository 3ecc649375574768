"""How a model starts: kexue.fm/archives/8725 and 8747 on our own encoder.

    python benchmarks/articles/initialization.py [--quick]

8725: what passes through a pair of matrices, 768 -> 3072 -> 768, without an activation: its second
moment after over that before, forward and backward, for every average of the two sides; then what
the averages were made for, a single matrix. 8747: why BERT starts small. A post-norm sublayer
norm(x + F(x)) divides its straight path by sqrt(1 + variance of F(x)); the product of these factors
is what is left at the top of what entered at the bottom. And where the growth of the logits goes
while masked words are learned: into the last norm's scale, unless the head has a norm of its own.
The last line has all figures as JSON.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from probes import branch_variances, fresh_model, random_ids
from tables import Line, Table, run_experiments
from toy import draw_chain, fully_masked
from training import masked_objective, train

from desmatch.model.initialization import VARIANCES, initialize
from desmatch.model.layers import Linear
from desmatch.recipe_training import TrainingConfig
from desmatch.runs import seed_everything

if TYPE_CHECKING:
    from torch import Tensor

    from desmatch.model.heads import MatchForPairs

SIDES = (768, 3072, 768)
"""Widths before, inside and after a feed-forward block of BERT-base."""

AVERAGES = ("geometric", "arithmetic", "quadratic")
TRUNCATED = 0.02 / 1.1368
"""Deviation of a normal of 0.02 that is drawn again beyond two deviations."""


class Growth(NamedTuple):
    """Second moments after a chain of matrices over those before it.

    Attributes:
        forward: Of what passes.
        backward: Of its gradient, on the way back.
    """

    forward: float
    backward: float


def measured_growth(scheme: str, sides: tuple[int, ...], *, num_tokens: int = 512) -> Growth:
    """Send normal noise through matrices between layers of the given widths, and back."""
    seed_everything(0)
    matrices = [Linear(m, n) for m, n in pairwise(sides)]
    x = torch.randn(num_tokens, sides[0], requires_grad=True)
    y = x
    for matrix in matrices:
        initialize(matrix, scheme=scheme, sigma=0.02)
        y = matrix(y)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    assert x.grad is not None
    return Growth(_second_moment(y) / _second_moment(x),
                  _second_moment(x.grad) / _second_moment(gradient))  # fmt: skip


def expected_growth(scheme: str, sides: tuple[int, ...]) -> Growth:
    """Return the same by theory: a matrix (m, n) multiplies by m and by n times its variance."""
    steps = [(m, n, VARIANCES[scheme](m, n)) for m, n in pairwise(sides)]
    return Growth(math.prod(m * t for m, _, t in steps), math.prod(n * t for _, n, t in steps))


def _second_moment(x: Tensor) -> float:
    return float(x.detach().square().mean())


def chain_table(_: bool) -> Table:
    """Measure both matrices together, for every scheme."""
    lines = []
    for scheme in (*AVERAGES, "fan-in", "fan-out"):
        expected, measured = (of(scheme, SIDES) for of in (expected_growth, measured_growth))
        lines += [
            Line(figure=f"{scheme}: {way}", measured=value, expected=theory,
                 at_least=0.97 * theory, at_most=1.03 * theory)
            for way, value, theory in zip(Growth._fields, measured, expected, strict=True)
        ]  # fmt: skip
    return Table(
        lines,
        "the fans keep the ends as well, the chain being symmetric; inside it fan-out has a "
        "quarter of the variance, and fan-in of the gradient's.",
    )


def single_table(_: bool) -> Table:
    """Measure one matrix alone, for the averages."""
    lines = []
    for scheme in AVERAGES:
        expected, measured = (
            sum((ratio - 1) ** 2 for ratio in of(scheme, SIDES[:2]))
            for of in (expected_growth, measured_growth)
        )
        lines.append(Line(figure=f"{scheme}: (forward - 1)^2 + (backward - 1)^2", unit="number",
                          measured=measured, expected=expected, at_least=0.95 * expected,
                          at_most=1.05 * expected))  # fmt: skip
    return Table(lines, "the averages stand in the opposite order: quadratic is best here.")


def straight_path(model: MatchForPairs, ids: Tensor) -> float:
    """Return the product over all sublayers of 1 / sqrt(1 + variance of the branch)."""
    return math.prod(1 / math.sqrt(1 + each) for each in branch_variances(model, ids))


def start_table(quick: bool) -> Table:
    """Measure BERT-base as it starts: deviation of its entries, and what is left of its input."""
    ids = random_ids(4 if quick else 16, 32)
    lines = []
    bounds = {"bert": (0.61, 0.5, math.inf), "arithmetic": (0.014, -math.inf, 0.05)}
    for scheme in bounds if quick else (*bounds, "geometric", "quadratic"):
        model = fresh_model(layers=12, width=768, initialization=scheme)
        if scheme == "bert":
            deviation = float(model.encoder.layers[0].feed_forward.expand.weight.detach().std())
            lines.append(Line(figure="bert: deviation of a matrix's entries", measured=deviation,
                              unit="number", expected=TRUNCATED, at_least=0.99 * TRUNCATED,
                              at_most=1.01 * TRUNCATED))  # fmt: skip
        expected, at_least, at_most = bounds.get(scheme, (None, -math.inf, math.inf))
        lines.append(Line(figure=f"{scheme}: left of the straight path after 24 sublayers",
                          measured=straight_path(model, ids), expected=expected,
                          at_least=at_least, at_most=at_most))  # fmt: skip
    return Table(
        lines,
        "12 layers of 768, post-norm, random ids in rows of 32. Less is left than expected, within "
        "the bounds: a row's tokens share the embedding of their type, a third of their variance, "
        "so that attention's averages cancel less than those of unrelated inputs would.",
    )


def last_scale(*, has_dense: bool, seed: int, num_steps: int) -> float:
    """Train on masked words; return the last norm's mean scale over the median of the others."""
    chain = draw_chain(100)
    model = fresh_model(layers=4, seed=seed, position="rotary", vocab_size=chain.vocab_size,
                        mlm_head_dense=has_dense)  # fmt: skip
    config = TrainingConfig(batch_size=16, learning_rate=1e-3, mlm_probability=0.3,
                            lr_scheduler_type="constant_with_warmup")  # fmt: skip
    batches = chain.batches(config, num_pairs=5000, seed=seed)
    train(model, batches, masked_objective, num_steps=num_steps,
          held_out=fully_masked(batches, 1), steps_per_evaluation=num_steps)  # fmt: skip
    norms = [model.encoder.embeddings.norm]
    for layer in model.encoder.layers:
        norms += [layer.attention_norm, layer.feed_forward_norm]
    *others, last = (float(norm.weight.detach().mean()) for norm in norms)
    return last / float(np.median(others))


def scale_table(quick: bool) -> Table:
    """Measure the last norm with and without the head's own dense layer and norm."""
    seeds, num_steps = ((0,), 150) if quick else ((0, 1, 2), 300)
    with_dense, without = (
        [last_scale(has_dense=has_dense, seed=seed, num_steps=num_steps) for seed in seeds]
        for has_dense in (True, False)
    )
    name = "last norm's scale over the others' median"
    return Table([
        Line(figure=f"{name}, head with dense", measured=with_dense),
        Line(figure=f"{name}, head without", measured=without),
        Line(figure="without minus with", unit="number", at_least=0.0,
             measured=list(np.subtract(without, with_dense))),
    ], f"4 layers of 64, {num_steps} steps on the toy language of 100 words, seeds "
       f"{', '.join(map(str, seeds))}.")  # fmt: skip


def main() -> None:
    """Print the tables and the line of JSON."""
    assert __doc__ is not None
    run_experiments(__doc__, {
        "8725: 768 -> 3072 -> 768, second moment after over before": chain_table,
        "8725: 768 -> 3072 alone": single_table,
        "8747: the start of BERT-base": start_table,
        "8747: the last norm after a short pretraining": scale_table,
    })  # fmt: skip


if __name__ == "__main__":
    main()
