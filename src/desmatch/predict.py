"""Scores of the test and of the held-out rows, from the last model of each trained fold.

Shapes: B held-out rows, T rows of the test, E evaluations of a stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from desmatch.data.closure import UNKNOWN
from desmatch.data.evidence import Evidence, TextPairs, answer, weigh_answers
from desmatch.data.graph import number_texts
from desmatch.data.read import column
from desmatch.data.split import RANDOM
from desmatch.data.vocabulary import Vocabulary
from desmatch.ensemble.predictions import Predictions
from desmatch.metrics.roc import roc_auc
from desmatch.model.checkpoints import load_model
from desmatch.model.scoring import PairLogits, score_pairs
from desmatch.prepare import Prepared, has_known_query
from desmatch.runs import (
    CLOSURE,
    RANDOM_ROWS,
    TEST,
    VALIDATION,
    atomic_write,
    fold_name,
    generator,
    write_json,
)
from desmatch.train.machine import use_machine
from desmatch.train.validation import read_evaluations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.model.heads import MatchForPairs
    from desmatch.recipe import Recipe


def predict_run(
    prepared: Prepared, recipe: Recipe, models: Mapping[int, Path], folder: Path
) -> None:
    """Write test.parquet, validation.parquet and, where there are some, random.parquet.

    All have the logits of both orders and the score of each row. The validation's file has its
    row in the training data, fold, label, group, weight and `honest_score` too: a row is scored by
    the one model that held its fold out. A score of the test, or of a row held out at random, is
    the mean of all models' scores, its logits are the mean of theirs; `has_known_query` says
    whether one of the models has trained on a query of the row. fold-K/ has what each model says.
    With `predict.closure` the test's and the random rows' logits hold what follows from labelled
    pairs; closure.json says how often that was so.

    Args:
        prepared: The prepared data.
        recipe: Its seed, its machine and what it keeps are used.
        models: Held-out fold to the folder of the model that did without it; loaded one by one.
        folder: An empty folder.
    """
    use_machine(recipe.machine)
    answers = answers_of_labels(prepared, recipe)
    write_json(folder / CLOSURE, answers.figures)
    folds = []
    for fold, model_folder in models.items():
        scored = _score_fold(prepared, recipe, fold, model_folder)
        scored = scored._replace(
            test=shifted(scored.test, answers.test), random=shifted(scored.random, answers.random)
        )
        _write(folder / fold_name(fold) / VALIDATION, scored.validation)
        _write_test(folder / fold_name(fold) / TEST, prepared, [fold], [scored.test])
        folds.append(scored)
    _write(folder / VALIDATION, _in_order_of_rows([scored.validation for scored in folds]))
    _write_test(folder / TEST, prepared, models, [scored.test for scored in folds])
    random_rows = np.flatnonzero(prepared.train_column("fold") == RANDOM)
    if len(random_rows):
        known = has_known_query(prepared, "train", models)[random_rows]
        columns = {**_train_columns(prepared, random_rows), "has_known_query": known}
        logits = mean_predictions([scored.random for scored in folds]).columns()
        _write(folder / RANDOM_ROWS, {**columns, **logits})


class Answers(NamedTuple):
    """What follows from labelled pairs.

    Attributes:
        test: (T,), what is added to the logits of the test's rows.
        random: (rows held out at random,), the same for these.
        figures: For the card.
    """

    test: NDArray[np.float64]
    random: NDArray[np.float64]
    figures: dict[str, Any]


def answers_of_labels(prepared: Prepared, recipe: Recipe) -> Answers:
    """Return what labelled pairs say of the test, and of rows held out at random; 0 if unasked.

    A row held out at random hears what a row of the test hears, but for other such rows. Rows of a
    held-out fold share no text with others: nothing follows for them.
    """
    is_random = prepared.train_column("fold") == RANDOM
    num_random, num_test = int(is_random.sum()), len(prepared.rows["test"])
    if not recipe.predict.closure:
        return Answers(np.zeros(num_test), np.zeros(num_random), {"is_used": False})
    train, test = _texts(prepared, *(column(prepared.rows["test"], side) for side in ("a", "b")))
    labels = prepared.train_column("label")
    evidence = _evidence(prepared, recipe, train)
    of_test = answer(train, labels, test)
    figures = {
        "is_used": True,
        "answered_test_rows": int((of_test != UNKNOWN).sum()),
        "answered_labelled_rows": evidence.num_answered,
        "answered_rightly": evidence.num_right,
        "log_likelihood_ratios": [*evidence.ratios],
    }
    of_random = answer(train.take(~is_random), labels[~is_random], train.take(is_random))
    return Answers(evidence.logits(of_test), evidence.logits(of_random), figures)


def answers_for_texts(
    prepared: Prepared,
    recipe: Recipe,
    a: Any,  # noqa: ANN401 - any Arrow array of texts
    b: Any,  # noqa: ANN401 - any Arrow array of texts
    *,
    evidence: Evidence | None = None,
) -> NDArray[np.float64]:
    """Return (B,), what labelled pairs say of any B pairs, to be added to logits.

    Of the run's own test it is what `answers_of_labels` says. What is said of a pair does not
    depend on the others; `evidence_of_labels`, given along, is not found anew for them.
    """
    train, asked = _texts(prepared, a, b)
    evidence = evidence or _evidence(prepared, recipe, train)
    return evidence.logits(answer(train, prepared.train_column("label"), asked))


def evidence_of_labels(prepared: Prepared, recipe: Recipe) -> Evidence:
    """Return what an answer of the labelled pairs weighs, whichever pairs are asked for."""
    nothing = pa.array([], pa.string())
    return _evidence(prepared, recipe, _texts(prepared, nothing, nothing)[0])


def _texts(prepared: Prepared, a: Any, b: Any) -> tuple[TextPairs, TextPairs]:  # noqa: ANN401
    """Return the labelled pairs and the pairs (a, b), their texts numbered alike."""
    sides = (column(prepared.rows["train"], side) for side in ("a", "b"))
    numbers = number_texts([*sides, a, b])
    return TextPairs(*numbers[:2]), TextPairs(*numbers[2:])


def _evidence(prepared: Prepared, recipe: Recipe, train: TextPairs) -> Evidence:
    """Return what an answer weighs, from the labelled pairs that are not held out at random."""
    given = prepared.train_column("fold") != RANDOM
    rng = generator(recipe.seed, "closure's evidence")
    return weigh_answers(train.take(given), prepared.train_column("label")[given], rng=rng)


def shifted(logits: PairLogits, by: NDArray[np.float64] | float) -> PairLogits:
    """Return the logits of both orders with (B,) added."""
    return PairLogits(logits.forward + by, logits.backward + by)


class FoldScores(NamedTuple):
    """What the model says that did without one fold.

    Attributes:
        test: Of all rows of the test.
        validation: Columns of the held-out rows' file.
        random: Of the rows that are held out at random.
    """

    test: PairLogits
    validation: dict[str, NDArray[Any]]
    random: PairLogits


def _score_fold(prepared: Prepared, recipe: Recipe, fold: int, model_folder: Path) -> FoldScores:
    model = load_model(model_folder)
    test = score_pairs(model, prepared.encode("test"), progress="scoring test")
    random_rows = np.flatnonzero(prepared.train_column("fold") == RANDOM)
    return FoldScores(
        test,
        _score_held_out(prepared, recipe, fold, model_folder, model),
        score_pairs(model, prepared.encode("train").take(random_rows)),
    )


def score_held_out(
    prepared: Prepared, recipe: Recipe, fold: int, model_folder: Path
) -> dict[str, NDArray[Any]]:
    """Return the columns of the rows of one fold, scored by the model that did without it.

    Args:
        prepared: The prepared data.
        recipe: Its seed, its machine and what it keeps are used.
        fold: That was held out.
        model_folder: Of the last model.
    """
    use_machine(recipe.machine)
    return _score_held_out(prepared, recipe, fold, model_folder, load_model(model_folder))


def _score_held_out(
    prepared: Prepared, recipe: Recipe, fold: int, model_folder: Path, model: MatchForPairs
) -> dict[str, NDArray[Any]]:
    folds = prepared.train_column("fold")
    held_out = np.flatnonzero(folds == fold)
    logits = score_pairs(model, prepared.encode("train").take(held_out))
    columns = _train_columns(prepared, held_out)
    chosen_among = read_evaluations(model_folder) if has_choice(recipe) else [logits]
    honest = honest_scores(
        np.stack([each.scores for each in chosen_among]),
        columns["label"],
        columns["group"],
        rng=generator(recipe.seed, "honest"),
    )
    return {
        "row": held_out,
        "fold": folds[held_out],
        **columns,
        **mean_predictions([logits]).columns(),
        "honest_score": honest,
    }


def _train_columns(prepared: Prepared, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return what is known of labelled rows before any model."""
    names = ("label", "group", "weight")
    return {"row": rows, **{name: prepared.train_column(name)[rows] for name in names}}


def _write_test(
    path: Path, prepared: Prepared, folds: Iterable[int], models: Sequence[PairLogits]
) -> None:
    known = has_known_query(prepared, "test", folds)
    rows = {"row": np.arange(len(known)), "has_known_query": known}
    _write(path, {**rows, **mean_predictions(models).columns()})


def _in_order_of_rows(folds: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Lay the columns of several folds together, sorted by the row in the training data."""
    order = np.argsort(np.concatenate([columns["row"] for columns in folds]))
    return {name: np.concatenate([columns[name] for columns in folds])[order] for name in folds[0]}


def has_choice(recipe: Recipe) -> bool:
    """Whether a model's weights were chosen by the AUC of the held-out rows.

    Rounds of pseudo-labels keep what they were chosen among, be it one model.
    """
    return recipe.last_training.keep == "best" or recipe.pseudo_labels.rounds > 0


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
    the other half. Checkpoints of all rounds of pseudo-labels that were trained are among them:
    the round that is kept is chosen like a checkpoint.

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


def predict_texts(
    model_folders: Sequence[Path],
    a: Any,  # noqa: ANN401 - any Arrow array or list of texts
    b: Any,  # noqa: ANN401 - any Arrow array or list of texts
    *,
    progress: str | None = None,
    in_bf16: bool = False,
) -> Predictions:
    """Return what the models of a run say of any pairs; they are loaded one by one.

    Args:
        model_folders: Of one vocabulary.
        a: (B,), texts, ids separated by single spaces.
        b: (B,), the second texts.
        progress: Name of the progress bar, or none.
        in_bf16: Matrix products in bfloat16.

    Raises:
        UserError: A model cannot be read.
    """
    pairs = Vocabulary.load(model_folders[0]).encode(a, b)
    logits = (
        score_pairs(load_model(folder), pairs, progress=progress, in_bf16=in_bf16)
        for folder in model_folders
    )
    return mean_predictions([*logits])


def mean_predictions(models: Sequence[PairLogits]) -> Predictions:
    """Return the means of the models' logits, and of their scores, which is another thing."""
    forward, backward = np.mean(models, axis=0)
    return Predictions(forward, backward, np.mean([each.scores for each in models], axis=0))


def _write(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    with atomic_write(path) as partial:
        pq.write_table(pa.table(columns), partial)
