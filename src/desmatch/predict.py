"""Scores of the test and of the held-out rows, from the last trained model.

Shapes: B held-out rows, T rows of the test, E evaluations of a stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from desmatch.data.read import read_pairs
from desmatch.data.split import RANDOM
from desmatch.data.vocabulary import Vocabulary
from desmatch.metrics.roc import roc_auc
from desmatch.model.checkpoints import load_model
from desmatch.model.scoring import PairLogits, score_pairs
from desmatch.prepare import Prepared, column, has_known_query
from desmatch.runs import atomic_write, generator
from desmatch.train.trainer import read_evaluations, set_threads

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.recipe import Recipe

TEST = "test.parquet"
VALIDATION = "validation.parquet"
RANDOM_ROWS = "random.parquet"


def predict_run(prepared: Prepared, recipe: Recipe, model_folder: Path, folder: Path) -> None:
    """Write test.parquet, validation.parquet and, where there are some, random.parquet.

    All have the logits of both orders and the score of each row. The validation's file has its
    row in the training data, label, group and `honest_score` too; that of the rows held out at
    random has row, label and group. It and the test's say whether a row's query is known.
    """
    set_threads(recipe.machine)
    model = load_model(model_folder)
    test = score_pairs(model, prepared.encode("test"), progress="scoring test")
    fold = recipe.validation.fold
    known = has_known_query(prepared, "test", fold)
    _write(
        folder / TEST, {"row": np.arange(len(known)), "has_known_query": known, **_columns(test)}
    )
    train = prepared.encode("train")
    held_out = np.flatnonzero(prepared.train_column("fold") == fold)
    validation = score_pairs(model, train.take(held_out))
    labels = prepared.train_column("label")[held_out]
    groups = prepared.train_column("group")[held_out]
    evaluations = read_evaluations(model_folder) if recipe_keeps_best(recipe) else [validation]
    honest = honest_scores(
        np.stack([logits.scores for logits in evaluations]),
        labels,
        groups,
        rng=generator(recipe.seed, "honest"),
    )
    rows = {"row": held_out, "label": labels, "group": groups, **_columns(validation)}
    _write(folder / VALIDATION, {**rows, "honest_score": honest})
    taken = np.flatnonzero(prepared.train_column("fold") == RANDOM)
    if len(taken):
        random = {
            "row": taken,
            "label": prepared.train_column("label")[taken],
            "group": prepared.train_column("group")[taken],
            "has_known_query": has_known_query(prepared, "train", fold)[taken],
        }
        logits = score_pairs(model, train.take(taken))
        _write(folder / RANDOM_ROWS, {**random, **_columns(logits)})


def recipe_keeps_best(recipe: Recipe) -> bool:
    """Whether the last stage's weights were chosen by their validation AUC."""
    last = recipe.finetune if recipe.finetune.num_train_epochs else recipe.pretrain
    return last.keep == "best"


def honest_scores(
    scores: NDArray[np.float64],
    labels: NDArray[np.int8],
    groups: NDArray[np.int64],
    *,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return scores whose AUC was not chosen by itself.

    The checkpoint that is kept is the best of E on the held-out rows, so its AUC on the same
    rows flatters. Here each half of the components is scored by the checkpoint that is best on
    the other half.

    Args:
        scores: (E, B), of every evaluation.
        labels: (B,), 0 or 1.
        groups: (B,), components.
        rng: Halves the components.

    Returns:
        (B,); the last evaluation's scores where a half lacks a class.
    """
    distinct, group = np.unique(groups, return_inverse=True)
    in_first = rng.permutation(len(distinct))[group] < len(distinct) / 2
    halves = (in_first, ~in_first)
    if any(len(np.unique(labels[half])) < 2 for half in halves):
        return np.array(scores[-1])
    honest = np.empty(len(labels))
    for here, there in (halves, halves[::-1]):
        best = int(np.argmax([roc_auc(labels[there], each[there]) for each in scores]))
        honest[here] = scores[best, here]
    return honest


def predict_file(model_folder: Path, test: Path, *, progress: bool = True) -> PairLogits:
    """Score the pairs of any file with a trained model.

    Raises:
        UserError: The file or the model cannot be read.
    """
    rows = read_pairs([test], labels="optional").rows
    pairs = Vocabulary.load(model_folder).encode(column(rows, "a"), column(rows, "b"))
    return score_pairs(
        load_model(model_folder), pairs, progress=f"scoring {test.name}" if progress else None
    )


def _columns(logits: PairLogits) -> dict[str, NDArray[np.float64]]:
    return {
        "logit_forward": logits.forward,
        "logit_backward": logits.backward,
        "score": logits.scores,
    }


def _write(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    with atomic_write(path) as partial:
        pq.write_table(pa.table(columns), partial)
