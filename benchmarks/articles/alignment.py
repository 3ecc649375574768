"""What alignment by frequency rank is worth: aligned rows against the same rows in random order.

    python benchmarks/articles/alignment.py --init FOLDER --reference-counts JSON --data DIR
        [--learning-rate RATE] [--seeds N] [--quick]

Source: kexue.fm/archives/8213, which reports clearly faster convergence and gives no figure. Three
starts of one joint stage with the settings of the recipe `baseline`, on shorter rows and in smaller
batches: the checkpoint with its embedding aligned, the same with the aligned rows in random order
(so that only the order differs), and a model of that shape with random weights. A seed decides the
drawn rows, the random order, the order of the batches and their noise. Loss: masked tokens of a
fold of whole components of the query graph, none of whose texts is trained on, masked once and for
all; AUC: of the same fold's labels at the end. The last line has the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from tables import Line, Table
from training import Batch, Curve, Task, read_task, shares_or_never, train

from desmatch.metrics.roc import roc_auc
from desmatch.model.checkpoints import Aligned, load_aligned
from desmatch.model.heads import MatchForPairs
from desmatch.model.scoring import score_pairs
from desmatch.recipe_file import load_recipe, recipe_path
from desmatch.runs import generator, seed_everything
from desmatch.train.pretrain import joint_objective

if TYPE_CHECKING:
    from desmatch.recipe import Recipe

Start = Literal["aligned", "shuffled", "random weights"]

CHECK = 0.7
"""Of the article's section: at most this share of the shuffled start's steps."""

OPTIONS = ["--data.max_length=32", "--pretrain.batch_size=32"]


def shuffle_rows(aligned: Aligned, first_id: int, rng: np.random.Generator) -> None:
    """Give the aligned ids each other's rows of the embedding and the decoder's bias, in place."""
    order = torch.from_numpy(first_id + rng.permutation(aligned.num_aligned))
    model = aligned.model
    with torch.no_grad():
        for table in (model.get_input_embeddings().weight, model.mlm_head.bias):
            table[first_id : first_id + aligned.num_aligned] = table[order]


def load_checkpoint(recipe: Recipe, task: Task, seed: int) -> Aligned:
    """Return the aligned start; a head that the checkpoint lacks is the same for both orders."""
    seed_everything(seed)
    return load_aligned(recipe.model, task.vocabulary, rng=generator(seed, "align"))


def starting_model(start: Start, recipe: Recipe, task: Task, seed: int) -> MatchForPairs:
    """Return the model of a start."""
    aligned = load_checkpoint(recipe, task, seed)
    if start == "random weights":
        return MatchForPairs(aligned.model.config)
    if start == "shuffled":
        shuffle_rows(aligned, task.vocabulary.first_id, generator(seed, "shuffle"))
    return aligned.model


class Bench(NamedTuple):
    """What all trainings share."""

    task: Task
    recipe: Recipe
    held_out: list[Batch]
    num_steps: int
    steps_per_evaluation: int

    def run(self, start: Start, seed: int) -> tuple[Curve, float]:
        """Train from a start; return the curve of its loss, and the AUC at its end."""
        model = starting_model(start, self.recipe, self.task, seed)
        config = self.recipe.pretrain
        curve = train(
            model,
            self.task.batches(config, seed=seed, has_labels=True),
            joint_objective(model, config.label_weight),
            num_steps=self.num_steps,
            held_out=self.held_out,
            steps_per_evaluation=self.steps_per_evaluation,
        )
        pairs, labels = self.task.held_out
        return curve, roc_auc(labels, score_pairs(model, pairs).scores)


def compare(bench: Bench, num_seeds: dict[Start, int]) -> dict[Start, dict[str, Any]]:
    """Train from every start; return its line of the table, one number a seed."""
    runs = {start: [bench.run(start, seed) for seed in range(number)]
            for start, number in num_seeds.items()}  # fmt: skip
    shuffled = [curve for curve, _ in runs["shuffled"]]
    return {start: figures_of(each, shuffled[: len(each)]) for start, each in runs.items()}


def figures_of(runs: list[tuple[Curve, float]], shuffled: list[Curve]) -> dict[str, Any]:
    """Return a line of the table; `shuffled` is that start's curve with the seed of each run."""
    curves, aucs = zip(*runs, strict=True)
    pairs = list(zip(curves, shuffled, strict=True))
    return {
        "best_losses": [curve.best for curve in curves],
        "steps": [curve.steps_to(theirs.best) for curve, theirs in pairs],
        "shares": [curve.share_of_steps(theirs) for curve, theirs in pairs],
        "aucs": list(aucs),
        "curves": [dict(zip(curve.steps, curve.losses, strict=True)) for curve in curves],
        "milliseconds": 1000 * float(np.mean([curve.seconds_per_step for curve in curves])),
    }


def print_lines(lines: dict[Start, dict[str, Any]]) -> None:
    """Print a line a start."""
    print(f"{'start':<16}{'best MLM loss (nats)':>22}{'steps to shuffled best':>24}{'AUC':>25}"
          f"{'ms a step':>11}")  # fmt: skip
    for start, line in lines.items():
        losses = " ".join(f"{each:.3f}" for each in line["best_losses"])
        steps = " ".join("never" if each is None else str(each) for each in line["steps"])
        aucs = " ".join(f"{each:.4f}" for each in line["aucs"])
        print(f"{start:<16}{losses:>22}{steps:>24}{aucs:>25}{line['milliseconds']:>11.0f}")
    print("a number a seed; time: the processor's")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--init", required=True, help="checkpoint folder with its vocab.txt")
    parser.add_argument(
        "--reference-counts", required=True, help="JSON, token to count in an open corpus"
    )
    parser.add_argument("--data", type=Path, required=True, help="contest files")
    parser.add_argument("--learning-rate", type=float, help="none: the recipe's")
    parser.add_argument("--seeds", type=int, default=3, help="of both orders of the rows")
    parser.add_argument("--quick", action="store_true", help="12 steps of one seed")
    return parser.parse_args()


def main() -> None:
    """Print the tables and the line of JSON."""
    options = read_options()
    started = time.perf_counter(), time.process_time()
    settings = [*OPTIONS, f"--model.init={options.init}",
                f"--model.reference_counts={options.reference_counts}"]  # fmt: skip
    if options.learning_rate is not None:
        settings.append(f"--pretrain.learning_rate={options.learning_rate}")
    recipe = load_recipe(recipe_path("baseline"), settings)
    task = read_task(options.data, recipe)
    num_steps, every, rows = (12, 4, 64) if options.quick else (150, 10, 128)
    num_seeds = 1 if options.quick else options.seeds
    held_out = task.masked_batches(recipe.pretrain, max_rows=rows)
    seeds: dict[Start, int] = dict.fromkeys(get_args(Start), num_seeds)
    seeds["random weights"] = 1
    lines = compare(Bench(task, recipe, held_out, num_steps, every), seeds)
    config = recipe.pretrain
    print(f"{num_steps} steps of {config.batch_size} pairs, rate {config.learning_rate:g}, "
          f"{task.vocabulary.size} tokens; {sum(len(each['masked_labels']) for each in held_out)} "
          f"held-out tokens, {len(task.held_out.labels)} rows for the AUC")  # fmt: skip
    aligned = load_checkpoint(recipe, task, 0)
    origin = {"aligned_ids": aligned.num_aligned, "drawn_rows": aligned.num_drawn,
              "has_mlm_head": aligned.has_mlm_head}  # fmt: skip
    print(f"{origin['aligned_ids']} ids aligned, {origin['drawn_rows']} rows drawn; the checkpoint "
          f"has {'its' if aligned.has_mlm_head else 'no'} MLM head\n")  # fmt: skip
    print_lines(lines)
    shares = shares_or_never(lines["aligned"]["shares"])
    gains = np.subtract(lines["aligned"]["aucs"], lines["shuffled"]["aucs"])
    Table([
        Line(figure="aligned: steps to shuffled's best loss, over shuffled's", measured=shares,
             expected=CHECK, at_most=CHECK),
        Line(figure="AUC, aligned minus shuffled, seed by seed", unit="AUC", measured=list(gains)),
    ]).show("The check and our figures")  # fmt: skip
    figures: dict[str, Any] = {"steps": num_steps, "learning_rate": config.learning_rate,
                               "check": CHECK, **origin, "starts": lines}  # fmt: skip
    figures["seconds"] = time.perf_counter() - started[0]
    figures["processor_seconds"] = time.process_time() - started[1]
    print(
        f"\ntime: {figures['seconds']:.0f} s, {figures['processor_seconds']:.0f} s of a processor"
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
