"""Steps of masked-language-model training that Amos saves beside a tuned AdamW.

    python benchmarks/articles/optimizers.py [--data DIR] [--quick]

Source: kexue.fm/archives/9344; Amos, arXiv 2210.11693, whose claim is that at most 70 % of AdamW's
steps lead to its best loss, with at most 51 % of its state; so with a momentum, as in the reference
code's BERT, while the article counts the state without one. A small model (the recipe `demo`'s) is
trained from random weights on masked tokens alone. The rate of each method is chosen among three by
the best loss of the first seed; the two schedules of the article take AdamW's. Then every method is
trained with three seeds; a seed decides weights, order and noise, alike for all methods. Loss: of a
fold of whole components of the query graph, none of whose texts is trained on, masked once and for
all. AdamW's linear schedule reaches its best at its end; the steps of the others are those to that
loss, counted in evaluations. The last line has the same figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tables import Line, Table
from training import Batch, Curve, Task, masked_objective, read_task, shares_or_never, train

from desmatch.model.checkpoints import build_model
from desmatch.model.configuration import MatchConfig
from desmatch.model.heads import MatchForPairs
from desmatch.recipe_file import load_recipe, recipe_path
from desmatch.recipe_training import AmosConfig, TrainingConfig
from desmatch.runs import seed_everything
from desmatch.train.amos import Amos, amos_groups
from desmatch.train.optimizers import state_elements

if TYPE_CHECKING:
    from desmatch.recipe import Recipe

BATCH_SIZE = 32
CLAIM = 0.7
REFERENCE = "AdamW, linear"


class Method(NamedTuple):
    """An optimizer with its schedule.

    Attributes:
        config: All but the rate.
        rates: To choose from; none: the rate of `REFERENCE`.
    """

    config: TrainingConfig
    rates: tuple[float, ...] = ()


def methods() -> dict[str, Method]:
    """Return what is compared, AdamW first."""
    adamw = TrainingConfig(batch_size=BATCH_SIZE)
    amos = replace(
        adamw,
        optimizer="amos",
        lr_scheduler_type="constant_with_warmup",
        amos=AmosConfig(beta=0.98),  # 1 - beta of the order of the rate
    )
    return {
        REFERENCE: Method(adamw, (5e-4, 1e-3, 2e-3)),
        "Amos": Method(amos, (0.005, 0.01, 0.02)),
        "Amos, momentum 0.9": Method(
            replace(amos, amos=AmosConfig(beta=0.98, momentum=0.9)), (0.005, 0.01, 0.02)
        ),
        "AdamW, inverse time": Method(replace(adamw, lr_scheduler_type="inverse_time")),
        "AdamW, inverse square": Method(replace(adamw, lr_scheduler_type="inverse_square")),
        "AdamW, linear, scale model": Method(replace(adamw, scale="model"), (0.01, 0.03, 0.1)),
    }


class Bench(NamedTuple):
    """What all trainings share."""

    task: Task
    recipe: Recipe
    held_out: list[Batch]
    num_steps: int
    steps_per_evaluation: int

    def curve(self, config: TrainingConfig, seed: int) -> Curve:
        """Train a new model."""
        seed_everything(seed)
        model = build_model(
            self.recipe.model,
            vocab_size=self.task.vocabulary.size,
            max_length=self.recipe.data.max_length,
        )
        return train(
            model,
            self.task.batches(config, seed=seed, has_labels=False),
            masked_objective,
            num_steps=self.num_steps,
            held_out=self.held_out,
            steps_per_evaluation=self.steps_per_evaluation,
        )


class Tuned(NamedTuple):
    """A method at its best rate.

    Attributes:
        losses: Rate to the best loss of the first seed.
        rate: The chosen one.
        curves: One a seed.
    """

    losses: dict[float, float]
    rate: float
    curves: list[Curve]


def tune(bench: Bench, method: Method, fallback: float, num_seeds: int) -> Tuned:
    """Choose the rate by the first seed, then train with the other seeds."""
    configs = {
        rate: replace(method.config, learning_rate=rate) for rate in method.rates or (fallback,)
    }
    first = {rate: bench.curve(config, 0) for rate, config in configs.items()}
    rate = min(first, key=lambda each: first[each].best)
    others = [bench.curve(configs[rate], seed) for seed in range(1, num_seeds)]
    losses = {each: curve.best for each, curve in first.items()}
    return Tuned(losses, rate, [first[rate], *others])


def figures_of(tuned: Tuned, reference: Tuned) -> dict[str, Any]:
    """Return a method's line of the table, one number a seed where seeds differ."""
    pairs = list(zip(tuned.curves, reference.curves, strict=True))
    return {
        "tuning": {str(rate): loss for rate, loss in tuned.losses.items()},
        "rate": tuned.rate,
        "best_losses": [curve.best for curve in tuned.curves],
        "steps": [curve.steps_to(theirs.best) for curve, theirs in pairs],
        "shares": [curve.share_of_steps(theirs) for curve, theirs in pairs],
        "state_per_parameter": tuned.curves[0].state_per_parameter,
        "milliseconds": 1000 * float(np.mean([each.seconds_per_step for each in tuned.curves])),
    }


def state_of_bert_base() -> float:
    """Return the numbers that Amos without momentum keeps for a parameter of BERT-base's shape."""
    with torch.device("meta"):
        model = MatchForPairs(MatchConfig())
    for each in model.parameters():
        each.grad = torch.empty_like(each)
    optimizer = Amos(amos_groups(model), lr=0.005)
    optimizer.step()
    return float(state_elements(optimizer) / sum(each.numel() for each in model.parameters()))


def print_table(lines: dict[str, dict[str, Any]]) -> None:
    """Print a line a method."""
    print(f"{'method':<28}{'rate':>8}{'best MLM loss (nats)':>22}{'steps to AdamW best':>22}"
          f"{'share':>7}{'state':>10}{'time':>6}")  # fmt: skip
    for name, line in lines.items():
        losses = " ".join(f"{each:.3f}" for each in line["best_losses"])
        share = "-" if None in line["shares"] else f"{np.mean(line['shares']):.0%}"
        steps = " ".join("never" if each is None else str(each) for each in line["steps"])
        print(f"{name:<28}{line['rate']:>8g}{losses:>22}{steps:>22}{share:>7}"
              f"{line['state_per_parameter']:>10.4f}{line['milliseconds']:>6.0f}")  # fmt: skip
    print("a number a seed; share: mean of steps over AdamW's; state: numbers kept a parameter; "
          "time: processor milliseconds a step; -: not with every seed")  # fmt: skip
    for name, line in lines.items():
        tried = ", ".join(f"{rate}: {loss:.3f}" for rate, loss in line["tuning"].items())
        print(f"rates of {name}, best loss of the first seed: {tried}")


def claim_table(lines: dict[str, dict[str, Any]], state_of_bert_base: float) -> Table:
    """Return what the paper and the article's section say, beside what came out."""
    rows = [
        Line(figure=f"{name}: steps to AdamW's best loss, over AdamW's",
             measured=shares_or_never(lines[name]["shares"]), expected=CLAIM, at_most=CLAIM)
        for name in ("Amos", "Amos, momentum 0.9")
    ]  # fmt: skip
    ours, adamw = (lines[each]["state_per_parameter"] for each in ("Amos, momentum 0.9", REFERENCE))
    rows.append(Line(figure="Amos, momentum 0.9: state over AdamW's",
                     measured=ours / adamw, expected=0.51))  # fmt: skip
    rows.append(Line(figure="Amos: numbers kept for a parameter of BERT-base", unit="numbers",
                     measured=state_of_bert_base, at_most=0.01))  # fmt: skip
    return Table(rows)


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/sample"))
    parser.add_argument("--quick", action="store_true", help="40 steps, one seed")
    options = parser.parse_args()
    started = time.perf_counter(), time.process_time()
    num_steps, every, num_seeds = (40, 10, 1) if options.quick else (500, 20, 3)
    recipe = load_recipe(recipe_path("demo"))
    task = read_task(options.data, recipe)
    config = TrainingConfig(batch_size=256)
    held_out = task.masked_batches(config, max_rows=128 if options.quick else 512)
    bench = Bench(task, recipe, held_out, num_steps, every)
    all_methods = methods()
    reference = tune(bench, all_methods.pop(REFERENCE), 0.0, num_seeds)
    lines = {REFERENCE: figures_of(reference, reference)}
    for name, method in all_methods.items():
        lines[name] = figures_of(tune(bench, method, reference.rate, num_seeds), reference)
    shape = f"{recipe.model.num_hidden_layers} x {recipe.model.hidden_size}"
    print(f"{shape}, {num_steps} steps of {BATCH_SIZE} pairs, evaluated every {every}; "
          f"{sum(len(each['masked_labels']) for each in held_out)} held-out tokens\n")  # fmt: skip
    print_table(lines)
    figures: dict[str, Any] = {"steps": num_steps, "methods": lines, "claimed_share": CLAIM}
    figures["state_of_bert_base"] = state_of_bert_base()
    figures["seconds"] = time.perf_counter() - started[0]
    figures["processor_seconds"] = time.process_time() - started[1]
    claim_table(lines, figures["state_of_bert_base"]).show("The paper's claims and our figures")
    print(
        f"\ntime: {figures['seconds']:.0f} s, {figures['processor_seconds']:.0f} s of a processor"
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
