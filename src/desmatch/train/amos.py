"""Amos: an optimiser that decays weights and rate by itself, with little memory.

Source: arXiv 2210.11693, google-research/jestimator; kexue.fm/archives/9344. Shapes: S slots of a
group.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from torch.optim.optimizer import required

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Slots = Literal["scalar", "rows"]
"""What shares a slot of Amos' state: a parameter, or a row: an output's or a token's weights."""

SLOT_SHAPES: dict[Slots, Callable[[Tensor], tuple[int, ...]]] = {
    "scalar": lambda _: (),
    "rows": lambda parameter: (len(parameter), *[1] * (parameter.ndim - 1)),
}
"""Kind of slots to the shape of a parameter's slots, which broadcasts to the parameter."""

ZETA = 0.25
"""Of the reference code: how fast b lowers the rate and the decay."""

SMALLEST = 2.0**-125
"""Of the reference code: what divides in place of a mean square of zero."""

VECTOR_SCALE = 0.5
"""Size that an entry of a bias is expected to reach; for AdamW also that of a norm's scale."""


class AmosGroup(TypedDict):
    """Parameters of one `scale` (eta) and one kind of `slots`."""

    params: list[nn.Parameter]
    scale: float
    slots: Slots


class AmosRule(NamedTuple):
    """One line of a table: the first that fits a parameter decides."""

    pattern: str
    """Found in the parameter's name."""
    min_dims: int
    """Fewest dimensions of the parameter."""
    scale: float
    """Size that an entry is expected to reach."""
    is_per_input: bool
    """Whether `scale` is divided by the square root of the length of a row."""
    slots: Slots


AMOS_RULES = (
    AmosRule(r"bias$", 0, VECTOR_SCALE, False, "scalar"),
    AmosRule(r"embeddings?\.|heat\.(place|fill\.vector)\.", 2, math.sqrt(2), True, "rows"),
    AmosRule(r"feed_forward\.contract\.", 2, math.sqrt(2), True, "rows"),
    AmosRule(r"", 2, 1.0, True, "rows"),
    AmosRule(r"weight$", 0, 1.0, False, "scalar"),  # of a norm
    AmosRule(r"", 0, VECTOR_SCALE, False, "scalar"),
)
"""The reference's scales and slots for BERT; the last lines fit any module."""


class Amos(torch.optim.Optimizer):
    """Adam with state of reduced shape, and with decay of the rate and of the weights built in.

    For rate xi = `lr`, scale eta, gradient g and the mean g2 of its squares over a slot:

        v <- beta v + (1 - beta) g2,  v_hat = v / (1 - beta^t)
        c = (1 + 1/4 sqrt(xi) b)^(-1/2),  d = (1 + 1/4 sqrt(xi eta) b)^(-1)
        gamma = c xi^2 g2 / v_hat
        theta <- theta - d (xi eta g / sqrt(v_hat) + 1/2 gamma theta)
        b <- b + gamma (1 + b)

    A good rate is 1 / sqrt(number of independent batches); a warm-up helps, a decaying schedule and
    another weight decay are not needed.

    Args:
        params: Groups with `scale` and `slots`, as `amos_groups` makes them.
        lr: Global rate; a scheduler may change it between steps.
        beta: Decay of the mean square; 1 - beta is best of the order of the rate.
        momentum: Decay of a running mean of the updates; 0: none, and no state for it.
        clip: Largest absolute value of an entry of the gradient; none: as it comes.
        initial_b: Where b starts; the larger, the nearer do trained weights stay to their start.
    """

    def __init__(
        self,
        params: Iterable[AmosGroup],
        *,
        lr: float,
        beta: float = 0.999,
        momentum: float = 0.0,
        clip: float | None = None,
        initial_b: float = 0.0,
    ) -> None:
        is_sound = lr >= 0 and 0 <= beta < 1 and 0 <= momentum < 1 and initial_b >= 0
        if not is_sound or (clip is not None and clip <= 0):
            raise ValueError(
                "Amos: expected lr and initial_b of 0 or more, beta and momentum in [0, 1) and "
                f"clip above 0, got {lr=}, {initial_b=}, {beta=}, {momentum=}, {clip=}"
            )
        options = {"lr": lr, "beta": beta, "momentum": momentum, "clip": clip}
        of_groups = {"scale": required, "slots": required}
        super().__init__(params, {**options, "initial_b": initial_b, **of_groups})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; `closure`, if given, computes the loss anew and its value is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                parameters = [each for each in group["params"] if each.grad is not None]
                if parameters:
                    self._step_group(group, parameters)
        return loss

    def _step_group(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        """Step the parameters of a group; all their slots as one vector, for few small kernels."""
        beta, momentum, clip = group["beta"], group["momentum"], group["clip"]
        states = [self._counted_state(each, group) for each in parameters]
        v, b = [state["v"] for state in states], [state["b"] for state in states]
        gradients = [each.grad if clip is None else each.grad.clamp(-clip, clip)
                     for each in parameters]  # fmt: skip
        g2 = [_mean_square(*each) for each in zip(gradients, v, strict=True)]
        torch._foreach_lerp_(v, g2, 1 - beta)
        unbiased = [1 - beta ** state["step"] for state in states]
        v_hat = torch._foreach_div(torch._foreach_clamp_min(v, SMALLEST), unbiased)
        slots = map(_joined, (g2, v_hat, b))
        step = _slot_step(*slots, lr=float(group["lr"]), scale=group["scale"])
        by_gradient, by_size, next_b = (_split_like(each, b) for each in step)
        torch._foreach_copy_(b, next_b)
        for i, parameter in enumerate(parameters):
            update = (by_gradient[i] * gradients[i]).addcmul_(by_size[i], parameter)
            if momentum:
                update = states[i]["momentum"].lerp_(update, 1 - momentum)
            parameter.sub_(update)

    def _counted_state(self, parameter: nn.Parameter, group: dict[str, Any]) -> dict[str, Any]:
        """Return the state, made at the first gradient, with this step counted."""
        state: dict[str, Any] = self.state[parameter]
        if not state:
            shape = SLOT_SHAPES[group["slots"]](parameter)
            state["step"] = 0
            state["v"] = parameter.new_zeros(shape)
            state["b"] = parameter.new_full(shape, group["initial_b"])
            if group["momentum"]:
                state["momentum"] = torch.zeros_like(parameter)
        state["step"] += 1
        return state


def _slot_step(
    g2: Tensor, v_hat: Tensor, b: Tensor, *, lr: float, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, y and the next b, (S,) each, where the update is x g + y theta."""
    c = (1 + ZETA * math.sqrt(lr) * b).rsqrt()
    d = (1 + ZETA * math.sqrt(lr * scale) * b).reciprocal()
    gamma = c * lr**2 * g2 / v_hat
    return d * lr * scale * v_hat.rsqrt(), d * gamma / 2, b + gamma * (1 + b)


def _mean_square(gradient: Tensor, slots: Tensor) -> Tensor:
    """Mean over what shares a slot, in the shape of `slots`."""
    rows = gradient.reshape(slots.numel(), -1)
    return torch.linalg.vector_norm(rows, dim=1).square().div(rows.shape[1]).view_as(slots)


def _joined(slots: Sequence[Tensor]) -> Tensor:
    return torch.cat([each.flatten() for each in slots])


def _split_like(vector: Tensor, slots: Sequence[Tensor]) -> list[Tensor]:
    """Undo `_joined`: (S,) to the shapes of `slots`."""
    pieces = vector.split([each.numel() for each in slots])
    return [piece.view_as(each) for piece, each in zip(pieces, slots, strict=True)]


def amos_groups(model: nn.Module) -> list[AmosGroup]:
    """Return the trainable parameters by scale and slots as in `AMOS_RULES`, for `Amos`."""
    members: dict[tuple[float, Slots], list[nn.Parameter]] = {}
    for name, parameter in trainable_parameters(model):
        rule = _first_rule(name, parameter)
        scale = rule.scale
        if rule.is_per_input:
            scale /= math.sqrt(parameter[0].numel())
        members.setdefault((scale, rule.slots), []).append(parameter)
    return [AmosGroup(params=each, scale=key[0], slots=key[1]) for key, each in members.items()]


def trainable_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield names and parameters that a gradient reaches."""
    return (each for each in model.named_parameters() if each[1].requires_grad)


def _first_rule(name: str, parameter: Tensor) -> AmosRule:
    fitting = (each for each in AMOS_RULES if parameter.ndim >= each.min_dims)
    return next(each for each in fitting if re.search(each.pattern, name))
