"""What training did to a run's model, layer by layer: scales of norms, gradients, updates.

Post-norm gradients fade towards the lower layers, warm-up gives these time, and a masked-language
model without a norm in its head grows the last norm's scale in its place: figures that show whether
it was so (kexue.fm/archives/8747).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from desmatch.errors import UserError
from desmatch.model.checkpoints import load_model
from desmatch.model.heads import model_inputs
from desmatch.model.layers import LayerNorm
from desmatch.report.figures import depth_figure
from desmatch.report.svg import to_svg
from desmatch.runs import atomic_folder, write_json
from desmatch.train.augment import closed_rows
from desmatch.train.machine import use_machine
from desmatch.train.pretrain import (
    joint_labels,
    joint_objective,
    joint_rows,
    stage_batches,
    starting_model,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn

    from desmatch.model.batch import TrainingBatches
    from desmatch.model.heads import MatchForPairs
    from desmatch.stages import Run

DIAGNOSIS = "diagnosis"
NUM_BATCHES = 8


def diagnose(run: Run, *, num_batches: int = NUM_BATCHES) -> dict[str, Any]:
    """Write RUN/diagnosis: diagnosis.json and its three figures; return the figures as a dict.

    Args:
        run: A run of one fold that has trained; `Run.of_fold` gives one.
        num_batches: Batches of the joint stage over which gradients are averaged.

    Raises:
        UserError: The run has no model, or nothing that it could be compared with.
    """
    use_machine(run.recipe.machine)
    end = load_model(run.last_model)
    start, start_name = _starting_point(run)
    joint = _stage_batches(run)
    batches = [joint[step] for step in range(num_batches)]
    norms = norm_scales(start, end)
    figures = {
        "fold": run.held_out,
        "start": start_name,
        "end": run.last_model.name,
        "batches": num_batches,
        "last_scale_ratio": last_scale_ratio(norms),
        "norms": norms,
        "parts": part_figures(start, end, batches, label_weight=run.recipe.pretrain.label_weight),
    }
    with atomic_folder(run.folder / DIAGNOSIS) as folder:
        write_json(folder / "diagnosis.json", figures)
        for name, svg in _drawings(figures).items():
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    return figures


def _starting_point(run: Run) -> tuple[MatchForPairs, str]:
    """Return the model the run began with, made again, or the first it kept, and its name."""
    if _can_begin_again(run):
        return starting_model(run.prepared, run.recipe)[0], "start"
    if run.last_model == run.first_model:
        raise UserError(
            f"{run.recipe.model.init}: the checkpoint that the run began with is not there or has "
            "changed, and the run has one model only: nothing to compare; put the checkpoint back"
        )
    return load_model(run.first_model), run.first_model.name


def _can_begin_again(run: Run) -> bool:
    """Whether the run began with random weights, or its checkpoint is still there unchanged."""
    if run.recipe.model.init is None:
        return True
    try:
        return run.stage_folder(run.first_model.name).is_finished
    except UserError:  # a file is gone
        return False


def _stage_batches(run: Run) -> TrainingBatches:
    """Return the joint stage's batches of masked tokens, whatever its objective was."""
    prepared, recipe = run.prepared, run.recipe
    closed = closed_rows(prepared, recipe, fold=run.held_out)
    rows = joint_rows(prepared, joint_labels(prepared, run.held_out)).joined(closed)
    config = replace(recipe.pretrain, objective="mlm")
    return stage_batches(prepared, recipe, config, rows, stage="pretrained")


def norm_scales(start: MatchForPairs, end: MatchForPairs) -> list[dict[str, Any]]:
    """Return each norm's mean absolute scale before and after, lowest norm first."""
    before = _scales(start)
    return [
        {"name": _norm_name(name), "start": before.get(name), "end": scale}
        for name, scale in _scales(end).items()
    ]


def _scales(model: MatchForPairs) -> dict[str, float]:
    """Return mean |gamma| by module; modules are registered in the order in which they act."""
    return {
        name: float(module.weight.detach().abs().mean())
        for name, module in model.named_modules()
        if isinstance(module, LayerNorm) and _part(name) is not None
    }


def last_scale_ratio(norms: Sequence[Mapping[str, Any]]) -> float:
    """Return the encoder's last scale over the median of its others; about 1 where none grew."""
    *others, last = (norm["end"] for norm in norms if norm["name"] not in HEADS.values())
    return float(last / np.median(others))


def part_figures(
    start: MatchForPairs,
    end: MatchForPairs,
    batches: Sequence[Mapping[str, Tensor]],
    *,
    label_weight: float,
) -> list[dict[str, Any]]:
    """Return gradient norms before and after, and the relative update, of each part of the model.

    A gradient norm is the mean over batches, dropout off. The update is the norm of the change over
    the norm at the start; none where a part was zero or not there.

    Args:
        start: The model before.
        end: The model after.
        batches: Of the joint objective.
        label_weight: Of a label beside a masked token.
    """
    before = gradient_norms(start, batches, label_weight=label_weight)
    after = gradient_norms(end, batches, label_weight=label_weight)
    updates = relative_updates(start, end)
    return [
        {
            "name": name,
            "gradient_start": before.get(name),
            "gradient_end": after[name],
            "update": updates.get(name),
        }
        for name in after
    ]


def gradient_norms(
    model: MatchForPairs, batches: Sequence[Mapping[str, Tensor]], *, label_weight: float
) -> dict[str, float]:
    """Return the mean norm of the joint objective's gradient for each part, lowest part first."""
    model.eval()
    objective = joint_objective(model, label_weight)
    total: dict[str, float] = {}
    for batch in batches:
        model.zero_grad()
        objective(model(**model_inputs(batch)), dict(batch)).backward()
        gradients = ((name, each.grad) for name, each in model.named_parameters())
        for part, norm in _norms_by_part(gradients).items():
            total[part] = total.get(part, 0.0) + norm / len(batches)
    model.zero_grad()
    return total


def relative_updates(start: nn.Module, end: nn.Module) -> dict[str, float]:
    """Return ||after - before|| / ||before|| for each part of what both models have."""
    old, new = start.state_dict(), end.state_dict()
    common = [name for name in new if name in old and new[name].shape == old[name].shape]
    changes = _norms_by_part((name, new[name] - old[name]) for name in common)
    sizes = _norms_by_part((name, old[name]) for name in common)
    return {part: change / sizes[part] for part, change in changes.items() if sizes[part]}


def _norms_by_part(tensors: Iterable[tuple[str, Tensor | None]]) -> dict[str, float]:
    """Join the norms of tensors by part; what has no part, or no tensor, is left out."""
    squares: dict[str, float] = {}
    for name, tensor in tensors:
        part = _part(name)
        if part is not None and tensor is not None:
            squares[part] = squares.get(part, 0.0) + float(tensor.double().square().sum())
    return {part: square**0.5 for part, square in squares.items()}


HEADS = {"mlm_head": "MLM head", "pair_head": "pair head"}
PARTS = {"encoder.embeddings": "embedding", "encoder.final_norm": "final norm", **HEADS}


def _part(name: str) -> str | None:
    """Return the part that a parameter or module belongs to, in words; none: of no interest."""
    layer = re.match(r"encoder\.layers\.(\d+)\.", name)
    if layer:
        return f"layer {int(layer[1]) + 1}"
    return next((part for prefix, part in PARTS.items() if name.startswith(prefix)), None)


def _norm_name(module: str) -> str:
    """Return a norm's name in words: its part, and in a layer its branch."""
    part = _part(module)
    assert part is not None
    branch = re.search(r"(attention|feed_forward)_norm$", module)
    return f"{part}, {branch[1].replace('_', '-')}" if branch else part


def _drawings(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the three figures as SVG by name."""
    norms, parts = figures["norms"], figures["parts"]
    first, last = figures["start"], figures["end"]
    scales = {first: _values(norms, "start"), last: _values(norms, "end")}
    gradients = {
        first: _values(parts, "gradient_start"),
        last: _values(parts, "gradient_end"),
    }
    updates = {f"{first} to {last}": _values(parts, "update")}
    norm_names, part_names = ([_tick(each["name"]) for each in lines] for lines in (norms, parts))
    drawn = {
        "gamma": depth_figure(norm_names, scales, y_label="mean |scale| of a norm"),
        "gradients": depth_figure(part_names, gradients, y_label="gradient norm", is_log=True),
        "updates": depth_figure(part_names, updates, y_label="update over size at the start"),
    }  # fmt: skip
    return {name: to_svg(figure, title=f"diagnosis {name}") for name, figure in drawn.items()}


def _tick(name: str) -> str:
    """Return a name short enough to stand under an axis: `layer 1, attention` as `1 attention`."""
    return name.removeprefix("layer ").replace(",", "")


def _values(lines: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Return a column, NaN where a line has nothing."""
    return np.array([line[key] for line in lines], dtype=float)
