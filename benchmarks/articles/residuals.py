"""Why residuals, and what deepnorm does for them: kexue.fm/archives/8994 and 8978.

    python benchmarks/articles/residuals.py [--quick]

How much one step of Adam over the layers' parameters changes the output, by depth: deepnorm keeps
it small where post-norm throws the output away. The same function with either norm, from one set of
weights. Parameter gradients of x + epsilon f(x), which shrink with epsilon while the forward pass
keeps its size. And whether 48 layers learn masked words without a warm-up, on a toy language whose
unigram entropy is known: a model that never looks at a neighbour cannot get below it. The last line
has all figures as JSON.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from probes import fresh_model, log_log_slope, random_ids, scale_every_branch
from tables import Line, Table, run_experiments
from toy import draw_chain, fully_masked
from training import masked_objective, train

from desmatch.model.convert import scale_branches
from desmatch.recipe_training import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from desmatch.model.heads import MatchForPairs

DEPTHS = (6, 12, 24, 48)
LEARNING_RATE = 1e-3
SEEDS = (0, 1, 2)


class Kind(NamedTuple):
    """A kind of residual layer.

    Attributes:
        build: Makes a model at its start, from `layers` and `seed`.
        expected: Its change by one step at each of the depths, as measured before on other code.
        at_least: Of that at the greatest depth, to be accepted.
        at_most: Of that at the greatest depth, to be accepted.
    """

    build: Callable[..., MatchForPairs]
    expected: tuple[float, ...]
    at_least: float = -math.inf
    at_most: float = math.inf


deepnorm_model = partial(fresh_model, norm="deepnorm", initialization="deepnorm")

KINDS = {
    "post": Kind(partial(fresh_model, norm="post", initialization="arithmetic"),
                 (0.88, 1.10, 1.31, 1.29), at_least=1.0),
    "pre": Kind(partial(fresh_model, norm="pre", initialization="arithmetic"),
                (0.60, 1.02, 1.22, 1.47)),
    "deepnorm": Kind(deepnorm_model, (0.09, 0.15, 0.22, 0.32), at_most=0.5),
    "deepnorm, rule for Adam": Kind(partial(deepnorm_model, deepnorm_rule="adam"),
                                    (0.05, 0.07, 0.10, 0.17), at_most=0.5),
}  # fmt: skip


def change_by_one_step(model: MatchForPairs, *, seed: int) -> float:
    """Return how far one Adam step on masked words moves the encoder's output, relative to it.

    Only the layers learn: what enters the first one stays as it is.
    """
    ids, labels = random_ids(seed=seed), random_ids(seed=seed + 1000)
    before = _output(model, ids)
    optimizer = torch.optim.Adam(model.encoder.layers.parameters(), lr=LEARNING_RATE)
    F.cross_entropy(model(ids).logits.flatten(0, 1), labels.flatten()).backward()
    optimizer.step()
    return float((_output(model, ids) - before).norm() / before.norm())


def _output(model: MatchForPairs, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        output: Tensor = model.encoder(ids).last_hidden_state
    return output


def change_table(quick: bool) -> Table:
    """Measure the change by one step at each depth."""
    seeds = range(3 if quick else 6)
    lines = []
    for name, kind in KINDS.items():
        for depth, expected in zip(DEPTHS, kind.expected, strict=True):
            changes = [change_by_one_step(kind.build(layers=depth, seed=seed), seed=seed)
                       for seed in seeds]  # fmt: skip
            low, high = -math.inf, math.inf
            if depth == DEPTHS[-1]:
                low, high = kind.at_least, kind.at_most
            lines.append(Line(figure=f"{name}: {depth} layers", measured=changes,
                              expected=expected, at_least=low, at_most=high))  # fmt: skip
    return Table(
        lines,
        f"width 64, {len(seeds)} seeds; without deepnorm the matrices start as Xavier's. The "
        "expected figures were measured on other code with another batch: depths and kinds are to "
        "be compared, not digits.",
    )


def conversion_gap(rule: str, *, layers: int) -> float:
    """Return the largest difference of two models' logits: post, and the deepnorm made of it."""
    post = fresh_model(layers=layers, norm="post")
    with torch.no_grad():
        for parameter in post.parameters():  # biases and scales of a trained model are not 0 and 1
            parameter += 0.02 * torch.randn_like(parameter)
    deepnorm = fresh_model(layers=layers, norm="deepnorm", deepnorm_rule=rule)
    deepnorm.load_state_dict(scale_branches(post.state_dict(), deepnorm.config.alpha))
    ids = random_ids()
    with torch.inference_mode():
        return float((post(ids).logits - deepnorm(ids).logits).abs().max())


def conversion_table(quick: bool) -> Table:
    """Measure what a post-norm model's logits lose on the way to deepnorm."""
    return Table([
        Line(figure=f"largest difference of a logit, {layers} layers, rule {rule}", unit="logit",
             measured=conversion_gap(rule, layers=layers), expected=0.0, at_most=1e-4)
        for layers, rule in product((12,) if quick else (12, 48), ("paper", "adam"))
    ])  # fmt: skip


EPSILONS = tuple(2.0**-power for power in range(4, 11))


def gradient_slope(*, layers: int) -> float:
    """Return the log-log slope of the layers' gradient norm over epsilon, with pre-norm.

    There all of a layer's parameters, its norms' too, stand inside f.
    """
    ids, labels = random_ids(seed=0), random_ids(seed=1)
    norms = []
    for epsilon in EPSILONS:
        model = fresh_model(layers=layers, norm="pre", initialization="arithmetic")
        scale_every_branch(model, epsilon)
        F.cross_entropy(model(ids).logits.flatten(0, 1), labels.flatten()).backward()
        gradients = [each.grad for each in model.encoder.layers.parameters()]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
    return log_log_slope(EPSILONS, norms)


def gradient_table(quick: bool) -> Table:
    """Measure how parameter gradients follow epsilon."""
    return Table([
        Line(figure=f"slope of the gradient's norm over epsilon, {layers} layers",
             measured=gradient_slope(layers=layers), expected=1.0, at_least=0.95, at_most=1.05)
        for layers in ((6,) if quick else (6, 48))
    ], f"x + epsilon f(norm(x)), epsilon from {EPSILONS[-1]:.4f} to {EPSILONS[0]:.4f}, "
       "log-log.")  # fmt: skip


class Trial(NamedTuple):
    """Trainings of a deep narrow model on the toy language, by their choices.

    Attributes:
        layers: Their depth.
        num_steps: Their length.
    """

    layers: int
    num_steps: int

    def loss(self, seed: int, *, warmup_ratio: float = 0.0, learning_rate: float = LEARNING_RATE,
             **choices: Any) -> float:  # noqa: ANN401 - MatchConfig's arguments  # fmt: skip
        """Return the loss of masked words after a training; infinite where it diverged."""
        model = fresh_model(layers=self.layers, width=32, seed=seed, position="rotary",
                            vocab_size=CHAIN.vocab_size, **choices)  # fmt: skip
        config = TrainingConfig(batch_size=16, learning_rate=learning_rate, mlm_probability=0.3,
                                warmup_ratio=warmup_ratio,
                                lr_scheduler_type="constant_with_warmup")  # fmt: skip
        batches = CHAIN.batches(config, num_pairs=5000, seed=seed)
        held_out = fully_masked(CHAIN.batches(config, num_pairs=480, seed=1000 + seed), 30)
        curve = train(model, batches, masked_objective, num_steps=self.num_steps,
                      held_out=held_out, steps_per_evaluation=self.num_steps)  # fmt: skip
        return curve.losses[-1]

    def tuned_post(self, grid: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the choices of a grid under which post-norm with a warm-up learns best."""
        losses = [self.loss(TUNING_SEED, **choices) for choices in grid]
        return grid[losses.index(min(losses))]


CHAIN = draw_chain(30)
TUNING_SEED = 100
GRID = [
    {"norm": "post", "warmup_ratio": 0.5, "learning_rate": rate, "initialization": scheme}
    for rate, scheme in product((3e-4, 1e-3, 3e-3), ("arithmetic", "bert"))
]


def depth_table(quick: bool) -> Table:
    """Train deep models without a warm-up, and post-norm with one."""
    trial, seeds = (Trial(12, 100), SEEDS[:1]) if quick else (Trial(48, 150), SEEDS)
    entropy = CHAIN.unigram_entropy
    tuned = trial.tuned_post(GRID[-1:] if quick else GRID)
    rows: list[tuple[str, dict[str, Any], float | None, float, float]] = [
        ("deepnorm, no warm-up", {"norm": "deepnorm", "initialization": "deepnorm"},
         2.79, -math.inf, entropy),
        ("pre, no warm-up", {"norm": "pre", "initialization": "arithmetic"},
         2.77, -math.inf, math.inf),
        ("post, no warm-up", {"norm": "post", "initialization": "arithmetic"},
         3.41, entropy - 0.05, math.inf),
        (f"post, warm-up, {tuned['learning_rate']:g}, {tuned['initialization']}", tuned,
         None, -math.inf, math.inf),
    ]  # fmt: skip
    lines = [Line(figure="unigram entropy", unit="nats", measured=entropy, expected=3.40)]
    for name, choices, expected, at_least, at_most in rows:
        losses = [trial.loss(seed, **choices) for seed in seeds]
        lines.append(Line(figure=f"loss of masked words: {name}", unit="nats", measured=losses,
                          expected=expected, at_least=at_least, at_most=at_most))  # fmt: skip
    return Table(
        lines,
        f"{trial.layers} layers of 32, {trial.num_steps} steps at {LEARNING_RATE:g}, seeds "
        f"{', '.join(map(str, seeds))}; with both neighbours seen {CHAIN.cloze_entropy:.2f} is the "
        f"least loss there is. What was expected is of another toy task, one seed. Post-norm with "
        f"a warm-up over half of the steps is the best of {len(GRID)} (three rates, Xavier's start "
        "or BERT's); the others are not tuned.",
    )


def main() -> None:
    """Print the tables and the line of JSON."""
    assert __doc__ is not None
    run_experiments(__doc__, {
        "8994: relative change of the output by one step of Adam": change_table,
        "8994: a post-norm checkpoint as deepnorm": conversion_table,
        "8994: parameter gradients of x + epsilon f(x)": gradient_table,
        "8994: deep models on a toy language": depth_table,
    })  # fmt: skip


if __name__ == "__main__":
    main()
