"""The card that signs a run: what was typed, with what, on what, and what came out."""

from __future__ import annotations

import dataclasses
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from desmatch.prepare import FIGURES
from desmatch.runs import processor_name, read_json, revision, usable_cores

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from desmatch.recipe import Recipe

METRICS = "metrics.json"
STAGE_LOG = "stages.json"
REPORTED_PACKAGES = ("desmatch", "torch", "transformers", "accelerate", "datasets", "numpy",
                     "scikit-learn", "scipy", "pyarrow")  # fmt: skip


def read_stage_log(folder: Path) -> dict[str, Any]:
    """Return the minutes of the stages that were done in this run, each since its last start."""
    path = folder / STAGE_LOG
    return dict(read_json(path)) if path.is_file() else {}


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
    stages = read_stage_log(folder)
    minutes = {name: each["minutes"] for name, each in stages.items()}
    return {
        "command": command,
        "recipe_name": recipe_name,
        "revision": revision(),
        "seed": recipe.seed,
        "machine": machine_text(recipe),
        "minutes": round(sum(minutes.values()), 2),
        "minutes_by_stage": minutes,
        "validation": validation,
        "start": read_json(folder / "pretrained" / FIGURES),
        "uses_unlabeled_test_rows": "yes, for masked language modelling, without labels",
        **figures,
        "warnings": [*figures["warnings"], *_claims(figures, validation, stages, recipe)],
        "recipe": dataclasses.asdict(recipe),
        "versions": {"python": platform.python_version(),
                     **{name: version(name) for name in REPORTED_PACKAGES}},
    }  # fmt: skip


def _claims(
    figures: Mapping[str, Any],
    validation: Mapping[str, Any],
    stages: Mapping[str, Any],
    recipe: Recipe,
) -> list[str]:
    """Return what a reader of the validation's figures should know."""
    width = validation["interval"][1] - validation["interval"][0]
    found = []
    if width > WIDE_INTERVAL:
        found.append(
            f"the interval is {width:.3f} wide: {validation['rows']} held-out rows say little; "
            "fewer --validation.num_folds hold more of them out"
        )
    known = figures["graph"]["test_rows_with_known_query"] / validation["test_size"]
    if known > MANY_KNOWN and not recipe.validation.random_share:
        found.append(
            f"{known:.0%} of the test's rows share a query with labelled rows and no held-out row "
            "does: the test's AUC may lie outside the interval; --validation.random_share 0.05 "
            "holds such rows out too and gives the interval of both kinds together"
        )
    for name, each in stages.items():
        if each["is_resumed"]:
            found.append(f"{name} was resumed: its minutes are those since the last start")
    if recipe.pseudo_labels.rounds:
        found.append("pseudo-labels: rows that share a query with the held-out fold got none")
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
