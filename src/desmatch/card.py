"""The card that signs a run: what was typed, with what, on what, and what came out."""

from __future__ import annotations

import dataclasses
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from desmatch.prepare import FIGURES
from desmatch.runs import (
    CARD,
    CLOSURE,
    MEMBERS,
    fold_name,
    processor_name,
    read_json,
    revision,
    usable_cores,
)
from desmatch.stages import read_stage_log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from desmatch.recipe import Recipe

METRICS = "metrics.json"
REPORTED_PACKAGES = ("desmatch", "torch", "transformers", "accelerate", "datasets", "numpy",
                     "scikit-learn", "scipy", "pyarrow")  # fmt: skip


def build_card(folder: Path, recipe: Recipe, *, recipe_name: str, command: str) -> dict[str, Any]:
    """Return what signs a run: command, values, versions, digests and figures.

    Args:
        folder: RUN, its stages up to the validation's figures done.
        recipe: All values.
        recipe_name: What the user called it.
        command: What the user typed; empty where Python started the run.
    """
    figures = read_json(folder / "prepared" / FIGURES)
    validation = read_json(folder / "metrics" / METRICS)
    log = read_stage_log(folder)
    minutes = minutes_by_stage(log, recipe)
    members = _read_members(folder, recipe)
    total = sum(minutes.values()) + sum(each["minutes"] for each in members.values())
    return {
        "command": command,
        "recipe_name": recipe_name,
        "revision": revision(),
        "seed": recipe.seed,
        "machine": machine_text(recipe),
        "minutes": round(total, 2),
        "minutes_by_stage": minutes,
        "validation": validation,
        **_start(folder, recipe),
        **_pseudo_labels(folder, recipe),
        **_soft_labels(folder, recipe),
        "models": {"folds": [*recipe.validation.trained_folds], "note": models_text(recipe)},
        **({"members": members} if members else {}),
        "closure": read_json(folder / "predictions" / CLOSURE),
        "uses_unlabeled_test_rows": "yes, for masked language modelling, without labels",
        **figures,
        "warnings": [
            *figures["warnings"],
            *_claims(figures, validation, recipe),
            *_resumed(log, recipe),
            *(f"member {name}: {warning}" for name, each in members.items()
              for warning in _resumed(read_stage_log(folder / MEMBERS / name), recipe)),
        ],
        "recipe": dataclasses.asdict(recipe),
        "versions": {"python": platform.python_version(),
                     **{name: version(name) for name in REPORTED_PACKAGES}},
    }  # fmt: skip


def _start(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Return where training began; an ensemble does not train."""
    if recipe.members:
        return {}
    first = folder / fold_name(recipe.validation.trained_folds[0])
    if recipe.mlm.num_train_epochs:
        return {"start": read_json(folder / "mlm" / FIGURES)}
    stage = "pretrained" if recipe.pretrain.num_train_epochs else "finetuned"
    return {"start": read_json(first / stage / FIGURES)}


def _pseudo_labels(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Return what each round of pseudo-labels brought, a list for each fold."""
    if recipe.members or not recipe.pseudo_labels.rounds:
        return {}
    models = {
        fold: folder / fold_name(fold) / "pseudo-labeled"
        for fold in recipe.validation.trained_folds
    }
    return {
        "pseudo_labels": [
            {"fold": fold, **each}
            for fold, model in models.items()
            for each in read_json(model / FIGURES)["rounds"]
        ]
    }


def _soft_labels(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Return who taught the models, and how well each teacher did on the rows held out."""
    if recipe.members or recipe.distill.teacher is None:
        return {}
    figures = {
        fold: read_json(folder / fold_name(fold) / "soft-labels" / FIGURES)
        for fold in recipe.validation.trained_folds
    }
    return {"distill": [{"fold": fold, **each} for fold, each in figures.items()]}


def _read_members(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Return what tells the members of an ensemble apart, whose own cards say the rest."""
    cards = {name: folder / MEMBERS / name / CARD for name in recipe.members}
    return {
        name: {
            "card": card.relative_to(folder).as_posix(),
            "minutes": read_json(card)["minutes"],
            "differences": recipe.members[name],
        }
        for name, card in cards.items()
    }


def minutes_by_stage(log: Mapping[str, Any], recipe: Recipe) -> dict[str, float]:
    """Return the minutes of each stage, summed over the folds that the recipe trains."""
    minutes: dict[str, float] = {}
    for name, each in _entries_that_count(log, recipe).items():
        stage = name.rpartition("/")[2]
        minutes[stage] = round(minutes.get(stage, 0) + each["minutes"], 3)
    return minutes


def _entries_that_count(log: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return the entries of whole-run stages and of the folds that the recipe trains."""
    trained = {fold_name(fold) for fold in recipe.validation.trained_folds}
    once_a_fold = {name.rpartition("/")[2] for name in log if "/" in name}
    return {
        name: each
        for name, each in log.items()
        if name.rpartition("/")[0] in trained or ("/" not in name and name not in once_a_fold)
    }


def models_text(recipe: Recipe) -> str:
    """Say how many models were trained, and what they mean for the figures."""
    count, total = len(recipe.validation.trained_folds), recipe.validation.num_folds
    if recipe.members:
        folds = f"{count} models each" if count > 1 else f"without fold {recipe.validation.fold}"
        return (
            f"{len(recipe.members)} members ({', '.join(recipe.members)}), {folds}: whole runs of "
            f"their own in members/, combined by {recipe.ensemble.combine}"
        )
    if count == 1:
        return f"one model, trained without fold {recipe.validation.fold} of {total}"
    return (
        f"{count} models, each trained without one of {total} folds: a score of the test is the "
        "mean of all of them, the validation's AUC is that of single models"
    )


def public_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card without rows of the data, which are not a contestant's to publish.

    Its `auc` is the figure that `interval` is of, the headline's; where that is another than the
    AUC of whole components, this one is `components_auc`.
    """
    validation = {name: value for name, value in card["validation"].items() if name != "hardest"}
    claimed = validation["headline"]
    if claimed["name"] != "auc":
        validation |= {"auc": claimed["value"], "components_auc": validation["auc"]}
    return {**card, "validation": validation}


def _claims(figures: Mapping[str, Any], validation: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Return what a reader of the validation's figures should know."""
    width = validation["interval"][1] - validation["interval"][0]
    found = []
    if width > WIDE_INTERVAL:
        hint = "; fewer --validation.num_folds hold more of them out, --folds 5 scores every row"
        found.append(
            f"the interval is {width:.3f} wide: {validation['rows']} held-out rows say little"
            + ("" if recipe.validation.folds == "all" else hint)
        )
    known = figures["graph"]["test_rows_with_known_query"] / validation["test_size"]
    if known > MANY_KNOWN and not recipe.validation.random_share:
        found.append(
            f"{known:.0%} of the test's rows share a query with labelled rows and no held-out row "
            "does: the test's AUC may lie outside the interval; --validation.random_share 0.05 "
            "holds such rows out too and gives the interval of both kinds together"
        )
    if recipe.pseudo_labels.rounds:
        found.append("pseudo-labels: rows that share a query with the held-out fold got none")
    return found


def _resumed(log: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Return which stages' minutes are not all there is."""
    found = []
    for name, each in _entries_that_count(log, recipe).items():
        fold, _, stage = name.rpartition("/")
        of_fold = f" of {fold}" if len(recipe.validation.trained_folds) > 1 and fold else ""
        if each["is_resumed"]:
            found.append(
                f"{stage}{of_fold} was resumed: its minutes are those since the last start"
            )
        if each.get("is_taken_over"):
            found.append(
                f"{stage}{of_fold} was taken over from another run: its minutes are not counted"
            )
    return found


MANY_KNOWN = 0.05
"""A larger share of the test's rows with a known query gets a warning."""

WIDE_INTERVAL = 0.1
"""An interval wider than this gets a warning."""


def machine_text(recipe: Recipe) -> str:
    """Return processor, cores and threads in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {usable_cores()} processor cores"
    threads = recipe.machine.num_threads or torch.get_num_threads()
    return f"{processor_name()}, {usable_cores()} cores, {threads} threads"
