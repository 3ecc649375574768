"""What fills a masked token in best, and heat against masked language modelling.

    python benchmarks/articles/heat.py [--data DIR] [--mask-rate SHARE] [--quick]

The article (kexue.fm/archives/9359) asks whether QB-Heat (arXiv 2211.13228) carries over to tokens.
First table: the fills at equal steps, by the decoder's loss on masked tokens of a fold whose texts
no training sees. `linear`, `mask` and `copy` predict the same tokens; `extrapolate` predicts the
ends of texts, so that its loss stands beside theirs and not against it. Second table: heat with the
fill `linear` against masked language modelling, which gets as many steps as heat's seconds allow;
then both are fine-tuned alike and score the fold. Trainings of one seed begin with one encoder.
Seconds are the processor's, of one thread. The last line has all figures as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import torch
from training import Curve, Task, read_task, train

from desmatch.metrics.roc import roc_auc
from desmatch.model.batch import UNLABELED, TrainingRows
from desmatch.model.checkpoints import build_model, load_model
from desmatch.model.scoring import score_pairs
from desmatch.recipe_file import load_recipe, recipe_path
from desmatch.recipe_training import Fill, TrainingConfig
from desmatch.runs import StageFolder, seed_everything
from desmatch.train.finetune import label_objective
from desmatch.train.pretrain import joint_objective
from desmatch.train.trainer import train_stage

if TYPE_CHECKING:
    from desmatch.model.batch import TrainingBatches
    from desmatch.model.heads import MatchForPairs
    from desmatch.recipe import Recipe

SEEDS = (0, 1, 2)
OPTIONS = ("--model.num_hidden_layers=2", "--machine.num_threads=1")
"""What differs from the recipe `demo`, the length of the stages aside."""

TIMED_STEPS = 100
"""Steps of either objective from which the time of one is taken."""


class Plan(NamedTuple):
    """How long to train.

    Attributes:
        fill_steps: Joint steps of the first table.
        heat_steps: Heat's joint steps of the second table.
        label_steps: Steps of the fine-tuning.
    """

    fill_steps: int
    heat_steps: int
    label_steps: int


class Trained(NamedTuple):
    """A model after the joint stage, and its loss and time."""

    model: MatchForPairs
    curve: Curve


def joint_config(recipe: Recipe, fill: Fill | None, mask_rate: float) -> TrainingConfig:
    """Return the joint stage's settings: heat's with a fill, else masked language modelling's."""
    if fill is None:
        return recipe.pretrain
    return replace(recipe.pretrain, objective="heat", fill=fill, mlm_probability=mask_rate)


def pretrained(
    task: Task, recipe: Recipe, config: TrainingConfig, *, num_steps: int, seed: int
) -> Trained:
    """Train jointly from random weights."""
    seed_everything(seed)
    model = build_model(
        recipe.model,
        vocab_size=task.vocabulary.size,
        max_length=recipe.data.max_length,
        pretraining=config,
    )
    curve = train(
        model,
        task.batches(config, seed=seed, has_labels=True),
        joint_objective(model, config.label_weight),
        num_steps=num_steps,
        held_out=task.masked_batches(config, max_rows=len(task.held_out.labels)),
        steps_per_evaluation=num_steps,
    )
    return Trained(model, curve)


def finetuned_auc(
    task: Task, recipe: Recipe, model: MatchForPairs, *, num_steps: int, seed: int
) -> float:
    """Return the held-out rows' AUC after the last stage, which starts from the saved model."""
    labelled = np.flatnonzero(task.rows.labels != UNLABELED)
    rows = TrainingRows(task.rows.pairs.take(labelled), task.rows.labels[labelled])
    epochs = num_steps * recipe.finetune.batch_size / len(labelled)
    config = replace(recipe.finetune, num_train_epochs=epochs, num_evaluations=1, keep="last")
    batches = task._replace(rows=rows).batches(config, seed=seed, has_labels=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        model.save_pretrained(folder)
        seed_everything(seed)
        model = load_model(Path(folder))
        stage = StageFolder(Path(folder) / "stage", "benchmark")
        train_stage(model, batches, label_objective(model), task.held_out,
                    recipe=recipe, stage=stage)  # fmt: skip
    return roc_auc(task.held_out.labels, score_pairs(model, task.held_out.pairs).scores)


def compare_fills(task: Task, recipe: Recipe, mask_rate: float, plan: Plan) -> list[dict[str, Any]]:
    """Train with each fill for equal steps."""
    lines = []
    for fill in get_args(Fill):
        config = joint_config(recipe, fill, mask_rate)
        curves = [
            pretrained(task, recipe, config, num_steps=plan.fill_steps, seed=seed).curve
            for seed in SEEDS
        ]
        milliseconds = 1000 * float(np.mean([curve.seconds_per_step for curve in curves]))
        losses = [curve.losses[-1] for curve in curves]
        lines.append({"fill": fill, "losses": losses, "milliseconds_per_step": milliseconds})
    return lines


def compare_objectives(
    task: Task, recipe: Recipe, mask_rate: float, plan: Plan
) -> list[dict[str, Any]]:
    """Train with both objectives for equal seconds and fine-tune alike."""
    configs = {
        "heat, linear": joint_config(recipe, "linear", mask_rate),
        "mlm": joint_config(recipe, None, mask_rate),
    }
    timed = min(TIMED_STEPS, plan.heat_steps)
    seconds = {
        name: pretrained(task, recipe, config, num_steps=timed, seed=0).curve.seconds_per_step
        for name, config in configs.items()
    }
    lines = []
    for name, config in configs.items():
        steps = round(plan.heat_steps * seconds["heat, linear"] / seconds[name])
        models = [pretrained(task, recipe, config, num_steps=steps, seed=seed) for seed in SEEDS]
        aucs = [
            finetuned_auc(task, recipe, model, num_steps=plan.label_steps, seed=seed)
            for (model, _), seed in zip(models, SEEDS, strict=True)
        ]
        spent = [steps * curve.seconds_per_step for _, curve in models]
        lines.append({"objective": name, "mask_rate": config.mlm_probability, "steps": steps,
                      "encoder_cells": encoder_cells(task.batches(config, seed=0, has_labels=True)),
                      "seconds": spent, "aucs": aucs})  # fmt: skip
    return lines


def encoder_cells(batches: TrainingBatches) -> float:
    """Return the cells of the encoder's rows a step, padding included, the mean of 20 steps."""
    return float(np.mean([batches[step]["input_ids"].numel() for step in range(20)]))


def spread(values: list[float], digits: int = 4) -> str:
    """Return mean and standard deviation over seeds."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def print_fills(lines: list[dict[str, Any]]) -> None:
    """Print the first table."""
    linear = np.array(lines[0]["losses"])
    print(
        f"\n{'fill':<14}{'ms a step':>10}{'held-out loss (nats)':>24}{'minus that of linear':>24}"
    )
    for line in lines:
        difference = spread(list(np.array(line["losses"]) - linear))
        beside = {"linear": "", "extrapolate": "other tokens"}.get(line["fill"], difference)
        print(f"{line['fill']:<14}{line['milliseconds_per_step']:>10.1f}"
              f"{spread(line['losses']):>24}{beside:>24}")  # fmt: skip


def print_objectives(lines: list[dict[str, Any]]) -> None:
    """Print the second table."""
    print(f"\n{'objective':<14}{'share hidden':>13}{'encoder cells a step':>22}{'steps':>7}"
          f"{'seconds':>15}{'AUC, fine-tuned':>19}")  # fmt: skip
    for line in lines:
        seconds, aucs = spread(line["seconds"], 1), spread(line["aucs"])
        print(f"{line['objective']:<14}{line['mask_rate']:>13.0%}{line['encoder_cells']:>22.0f}"
              f"{line['steps']:>7}{seconds:>15}{aucs:>19}")  # fmt: skip
    difference = np.array(lines[0]["aucs"]) - np.array(lines[1]["aucs"])
    print(f"AUC of heat minus that of mlm, seed by seed: {spread(list(difference))}")


def main() -> None:
    """Print both tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/sample"))
    parser.add_argument("--mask-rate", type=float, default=0.3, help="of heat, 0.15 to 0.5")
    parser.add_argument("--steps", type=int, default=1000, help="of heat's joint stage, table 2")
    parser.add_argument("--label-steps", type=int, default=400, help="of the fine-tuning")
    parser.add_argument("--quick", action="store_true", help="20 steps a stage: figures are noise")
    options = parser.parse_args()
    plan = Plan(20, 20, 20) if options.quick else Plan(300, options.steps, options.label_steps)
    torch.set_num_threads(1)
    recipe = load_recipe(recipe_path("demo"), OPTIONS)
    task = read_task(options.data, recipe)
    started = time.process_time()
    fills = compare_fills(task, recipe, options.mask_rate, plan)
    objectives = compare_objectives(task, recipe, options.mask_rate, plan)
    print(f"{options.data.name}, {recipe.model.num_hidden_layers} layers of "
          f"{recipe.model.hidden_size}, batches of {recipe.pretrain.batch_size} pairs, "
          f"{len(task.held_out.labels)} held-out rows, {len(SEEDS)} seeds; {plan.fill_steps} joint "
          f"steps of each fill; {plan.label_steps} steps of fine-tuning")  # fmt: skip
    print_fills(fills)
    print_objectives(objectives)
    seconds = time.process_time() - started
    print(f"\nprocessor time: {seconds:.0f} s, one thread")
    print(json.dumps({"data": options.data.name, "mask_rate": options.mask_rate,
                      **plan._asdict(), "fills": fills, "objectives": objectives,
                      "seconds": seconds}))  # fmt: skip


if __name__ == "__main__":
    main()
