"""What to do next: the few steps that a run's own figures call for, each with its option."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from desmatch.report.tables import (
    drift_rows,
    feature_name,
    finite,
    headline,
    interval,
    mapping,
    mappings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WIDE_INTERVAL = 0.04
"""An interval wider than this hides what most changes of a recipe bring."""
STRONG_DRIFT = 0.6
"""From this AUC on, a discriminator tells the test from the labelled rows well."""
MANY_KNOWN = 0.05
"""A larger share of test rows with a known query moves the test's AUC."""
MANY_ANSWERS = 0.01
"""A larger share of test rows whose answer follows from labelled pairs is worth using."""
MANY_FLIPS = 0.03
"""A larger share of decisions that turn with the order of the texts."""
LOG_LOSS_GAIN = 0.01
"""Share of the log loss that a calibration has to save before it is worth a word."""
WEAK_SLICE = 0.03
"""A slice is weak if the upper end of its interval lies this far below the AUC of all rows."""
MOST_STEPS = 5


class Step(NamedTuple):
    """Something to do."""

    text: str
    option: str = ""
    """What to type for it, if there is an option."""


def next_steps(card: Mapping[str, Any], history: Sequence[Mapping[str, Any]] = ()) -> list[Step]:
    """Return what the figures of a run call for, most weighty first; no warning is said twice.

    Args:
        card: The run's card.
        history: Its logged steps: {stage, step, loss?, roc_auc?, fold?}.
    """
    warnings = "\n".join(map(str, card.get("warnings") or ()))
    steps = [*(step for rule in RULES for step in rule(card)), *_training(history)]
    return [step for step in steps if not step.option or step.option not in warnings][:MOST_STEPS]


def _answers(card: Mapping[str, Any]) -> Iterator[Step]:
    graph, size = mapping(card.get("graph")), mapping(card.get("validation")).get("test_size")
    found = sum(
        finite(graph.get(name)) or 0
        for name in ("test_rows_of_known_pair", "test_rows_that_follow")
    )
    if size and found / size > MANY_ANSWERS and not mapping(card.get("closure")).get("is_used"):
        yield Step(
            f"The answer of {found:,.0f} of the test's rows follows from labelled pairs "
            "(a = b and b = c give a = c): add it to their scores",
            "--predict.closure true",
        )


def _known_queries(card: Mapping[str, Any]) -> Iterator[Step]:
    validation, graph = mapping(card.get("validation")), mapping(card.get("graph"))
    known = finite(graph.get("test_rows_with_known_query"))
    size = finite(validation.get("test_size"))
    has_random_rows = finite(validation.get("expected_test_auc")) is not None
    if known and size and known / size > MANY_KNOWN and not has_random_rows:
        yield Step(
            f"{known / size:.0%} of the test's rows share a query with the labelled ones: hold "
            "single rows out too, and the figure on the first line will be that of such a test",
            "--validation.random_share 0.05",
        )


def _width(card: Mapping[str, Any]) -> Iterator[Step]:
    validation = mapping(card.get("validation"))
    ends = headline(validation).interval
    num_folds = len(list(mappings(validation.get("folds"))))
    if ends and ends[1] - ends[0] > WIDE_INTERVAL and num_folds < 2:
        yield Step(
            f"The interval is {ends[1] - ends[0]:.3f} wide: a model a fold gives every labelled "
            "row a held-out score, and their mean scores the test better",
            "--folds 5",
        )


def _drift(card: Mapping[str, Any]) -> Iterator[Step]:
    drift = mapping(card.get("drift"))
    auc = finite(drift.get("auc"))
    if auc is not None and auc > STRONG_DRIFT:
        rows = drift_rows(drift)
        by = f", above all by {rows[0].name}" if rows and rows[0].name else ""
        yield Step(
            f"The test is told from the labelled rows{by} (AUC {auc:.2f}, alike would be 0.50): "
            "read the weighted AUC, and compare recipes by it"
        )


def _weak_slice(card: Mapping[str, Any]) -> Iterator[Step]:
    validation = mapping(card.get("validation"))
    whole = finite(validation.get("auc"))
    weak = [
        (ends[1], each)
        for each in mappings(validation.get("slices"))
        if (ends := interval(each.get("interval"))) and finite(each.get("auc")) is not None
    ]
    if whole is None or not weak:
        return
    upper, each = min(weak, key=lambda pair: pair[0])
    if upper < whole - WEAK_SLICE:
        name = feature_name(each.get("slice"))
        yield Step(
            f"Weakest slice: {name}, {each.get('value') or ''}, AUC {each['auc']:.3f} against "
            f"{whole:.3f} of all rows; the hardest rows below show what is missed"
        )


def _calibration(card: Mapping[str, Any]) -> Iterator[Step]:
    calibration = mapping(mapping(card.get("validation")).get("calibration"))
    losses = {
        name: loss
        for name, each in calibration.items()
        if (loss := finite(mapping(each).get("log_loss"))) is not None
    }
    before = losses.get("none")
    if before is None:
        return
    best = min(losses, key=lambda name: losses[name])
    if losses[best] < before * (1 - LOG_LOSS_GAIN):
        yield Step(
            f"Where log loss counts: {best} calibration takes it from {before:.4f} to "
            f"{losses[best]:.4f}; the order of the scores, and so the AUC, hardly moves"
        )


def _order(card: Mapping[str, Any]) -> Iterator[Step]:
    flips = finite(mapping(mapping(card.get("validation")).get("order")).get("decision_flips"))
    finetune = mapping(mapping(card.get("recipe")).get("finetune"))
    swaps = finite(finetune.get("swap_probability"))
    if flips is not None and flips > MANY_FLIPS and swaps is not None and swaps < 0.5:
        yield Step(
            f"{flips:.1%} of the decisions turn when the two texts change places: swap them more "
            "often in training",
            "--finetune.swap_probability 0.5",
        )


def _start(card: Mapping[str, Any]) -> Iterator[Step]:
    recipe = mapping(card.get("recipe"))
    model = mapping(recipe.get("model"))
    if "init" in model and model["init"] is None:
        yield Step(
            "The weights began at random: a checkpoint of plain text, aligned by frequency, is "
            "worth trying before other options",
            "--init CHECKPOINT --reference-counts counts.json",
        )


def _training(history: Sequence[Mapping[str, Any]]) -> Iterator[Step]:
    """Yield a step if the last stage was best at its very end, or long before it."""
    last_stage = [each for each in history if each.get("stage") == history[-1].get("stage")]
    fold = last_stage[-1].get("fold") if last_stage else None
    aucs = [
        auc
        for each in last_stage
        if each.get("fold") == fold and (auc := finite(each.get("roc_auc"))) is not None
    ]
    if len(aucs) < 3:
        return
    best = aucs.index(max(aucs))
    name = {"finetuned": "finetune", "pretrained": "pretrain"}.get(str(history[-1].get("stage")))
    if best == len(aucs) - 1 and aucs[-1] - aucs[-2] > 0.001:
        yield Step("The validation AUC still rose at the last evaluation: train longer",
                   f"--{name}.num_train_epochs" if name else "")  # fmt: skip
    elif best < len(aucs) / 3:
        yield Step(
            "The validation AUC was best early: fewer epochs or a smaller learning rate",
            f"--{name}.num_train_epochs" if name else "",
        )


RULES: tuple[Callable[[Mapping[str, Any]], Iterator[Step]], ...] = (
    _answers, _known_queries, _width, _drift, _weak_slice, _start, _order, _calibration,
)  # fmt: skip
"""From the weightiest on."""
