"""The recipe's optimiser: Amos or AdamW, also in units of the model, and schedules that halve.

Sources: kexue.fm/archives/9344; Amos, arXiv 2210.11693, google-research/jestimator. A step is

    theta <- theta - (alpha_t u_t + rho_t theta)

with update u_t, rate alpha_t, decay rho_t. Let eps_t = theta - theta* be what is left to learn.
The article lets the decay cancel the second-order harm of the step and gets

    alpha_t = alpha_0 ||eps_t||^2 / (||eps_0|| ||u_t||),    rho_t = alpha_0^2 / (2 q) s_t,
    s_t = ||eps_t||^2 / ||eps_0||^2,    s_{t+1} = s_t - 2 alpha_0 p_t s_t^(3/2)

where p_t is the cosine of u_t and eps_t, and q = theta . eps_t / ||eps_t||^2. So the rate and the
decay share one factor s_t: the schedules below. ||eps_0|| is the size that a parameter has to
reach, sqrt(k) sigma for k entries of deviation sigma: the scales below.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict, assert_never

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from desmatch.train.amos import VECTOR_SCALE, Amos, amos_groups, trainable_parameters

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

    from desmatch.recipe_training import TrainingConfig

WORD_EMBEDDING = "encoder.embeddings.word.weight"
"""Tied to the decoder."""

Scale = Literal["none", "model"]
"""Unit of AdamW's steps: the learning rate itself, or times each parameter's deviation."""


class AdamWGroup(TypedDict):
    """Parameters of one rate and one decay."""

    params: list[nn.Parameter]
    lr: float
    weight_decay: float


def adamw_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    scale: Scale = "none",
    layer_decay: float = 1.0,
    embedding_rate: float = 1.0,
) -> list[AdamWGroup]:
    """Return the trainable parameters by rate and decay, for AdamW; only matrices decay.

    With `layer_decay` below 1 the rate falls from the heads to the embedding by that factor a layer
    (ULMFiT, arXiv 1801.06146). The token embedding's rate is `embedding_rate` times what it would
    be.

    With `scale="model"` the rate is in units of each parameter's deviation sigma, measured now:
    alpha_t ||u_t|| = learning_rate ||eps_0||, where ||eps_0|| = sqrt(k) sigma and Adam's u_t has k
    entries of about 1; of three rates 0.03 was best on the sample. The decay is divided by sigma in
    return: a step still takes the share learning_rate * weight_decay from a matrix, as rho_t is
    free of ||eps_0||. Every matrix is then a group of its own: a resumed training measures trained
    weights, and finds as many groups as the uninterrupted one, whose rates and decays it loads.
    """
    named = list(trainable_parameters(model))
    num_layers = 1 + max((_layer_of(name) for name, _ in named), default=-1)
    members: dict[AdamWKey, list[nn.Parameter]] = {}
    for name, parameter in named:
        is_matrix = parameter.ndim >= 2
        match scale:
            case "none":
                sigma = 1.0
            case "model":
                sigma = deviation(parameter) if is_matrix else VECTOR_SCALE
            case _:
                assert_never(scale)
        rate = learning_rate * sigma * layer_decay ** _layers_above(name, num_layers)
        if name == WORD_EMBEDDING:
            rate *= embedding_rate
        own = name if scale == "model" and is_matrix else ""
        key = AdamWKey(own, rate, weight_decay / sigma if is_matrix else 0.0)
        members.setdefault(key, []).append(parameter)
    return [
        AdamWGroup(params=params, lr=key.lr, weight_decay=key.weight_decay)
        for key, params in members.items()
    ]


class AdamWKey(NamedTuple):
    """What parameters of one group share; a matrix that is a group of its own gives its name."""

    own: str
    lr: float
    weight_decay: float


def _layers_above(name: str, num_layers: int) -> int:
    """Return how many steps a parameter lies below the heads."""
    if ".embeddings." in f".{name}":
        return num_layers + 1
    layer = _layer_of(name)
    return 0 if layer < 0 else num_layers - layer


def _layer_of(name: str) -> int:
    """Return the number of the encoder's layer that a parameter belongs to, or -1."""
    found = re.search(r"^(?:encoder\.)?layers\.(\d+)\.", name)
    return int(found[1]) if found else -1


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe's stage over a model's trainable parameters."""
    match config.optimizer:
        case "amos":
            return Amos(amos_groups(model), lr=config.learning_rate, **asdict(config.amos))
        case "adamw":
            groups = adamw_groups(
                model,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                scale=config.scale,
                layer_decay=config.layer_decay,
                embedding_rate=config.embedding_rate,
            )
            return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        case _:
            assert_never(config.optimizer)


def build_scheduler(
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    *,
    num_steps: int,
    warmup_steps: int,
) -> LRScheduler:
    """Return the schedule of a recipe's stage.

    Args:
        optimizer: Whose groups' rates are multiplied.
        config: Its `lr_scheduler_type` and `half_life`.
        num_steps: Of the stage, the warm-up among them.
        warmup_steps: Over which the rates rise from 0.
    """
    own = {"inverse_time": inverse_time, "inverse_square": inverse_square}
    if config.lr_scheduler_type not in own:
        return get_scheduler(config.lr_scheduler_type, optimizer, warmup_steps, num_steps)
    half_life = config.half_life or num_steps / 3
    factor = partial(own[config.lr_scheduler_type], half_life=half_life, warmup_steps=warmup_steps)
    return LambdaLR(optimizer, factor)


def deviation(matrix: Tensor) -> float:
    """Return the deviation of a matrix's entries.

    One that starts constant counts with 1 / sqrt(length of a row): it has to move as well.
    """
    return float(matrix.detach().std(correction=0)) or matrix[0].numel() ** -0.5


def inverse_time(step: int, *, half_life: float, warmup_steps: int) -> float:
    """Linear warm-up, then 1 / (t / T + 1) for T = `half_life`: one half T steps later.

    With p_t = p_0 ||eps_t|| / ||eps_0||, a direction that gets worse as less is left to learn,
    s_{t+1} = s_t - 2 alpha_0 p_0 s_t^2, and s_t = 1 / (2 alpha_0 p_0 t + 1). It is one half when
    2 alpha_0 p_0 T = 1. For `LambdaLR`: `partial(inverse_time, half_life=..., warmup_steps=...)`.
    """
    if step < warmup_steps:
        return step / warmup_steps
    return 1 / ((step - warmup_steps) / half_life + 1)


def inverse_square(step: int, *, half_life: float, warmup_steps: int) -> float:
    """Linear warm-up, then 1 / ((sqrt(2) - 1) t / T + 1)^2 for T = `half_life`.

    With a constant p_t = p, s_{t+1} = s_t - 2 alpha_0 p s_t^(3/2), and
    s_t = 1 / (alpha_0 p t + 1)^2. It is one half when alpha_0 p = (sqrt(2) - 1) / T.
    """
    if step < warmup_steps:
        return step / warmup_steps
    return 1 / ((math.sqrt(2) - 1) * (step - warmup_steps) / half_life + 1) ** 2


def state_elements(optimizer: torch.optim.Optimizer) -> int:
    """Return how many numbers an optimizer keeps beside the parameters, once it took a step."""
    kept = (each for state in optimizer.state.values() for each in state.values())
    return sum(each.numel() if isinstance(each, Tensor) else 1 for each in kept)
