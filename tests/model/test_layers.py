from __future__ import annotations

import pytest
import torch
from torch import nn

from desmatch.model.layers import LayerNorm, Linear, activation_dtype
from tests.model.conftest import build, packed_pairs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("ours", "plain"), [(Linear(6, 4), nn.Linear(6, 4)), (LayerNorm(6), nn.LayerNorm(6))]
)
def test_results_have_the_dtype_of_the_input_and_gradients_that_of_the_parameters(
    ours, plain, dtype
):
    plain.load_state_dict(ours.state_dict())
    plain.to(dtype)
    x = torch.randn(3, 6, dtype=dtype)
    result = ours(x)
    assert result.dtype == dtype
    torch.testing.assert_close(result, plain(x))
    result.float().sum().backward()
    assert {parameter.grad.dtype for parameter in ours.parameters()} == {torch.float32}


def test_activations_have_the_dtype_of_autocast():
    cpu = torch.device("cpu")
    assert activation_dtype(cpu) == torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert activation_dtype(cpu) == dtype
        with torch.autocast("cpu", dtype, enabled=False):
            assert activation_dtype(cpu) == torch.float32


@pytest.mark.parametrize("position", ["absolute", "relative", "rotary"])
def test_all_layers_run_in_the_dtype_of_autocast(position):
    model = build(position=position, norm="pre").encoder
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _module, _inputs, result, name=name: seen.setdefault(name, result)
        )
    _, packed = packed_pairs()
    with torch.autocast("cpu", torch.bfloat16):
        model(**packed.inputs)
    inside = [name for name in seen if name.startswith(("layers", "final"))]
    assert len(inside) > 10
    assert {seen[name].dtype for name in inside} == {torch.bfloat16}
    assert seen["embeddings.norm"].dtype == torch.float32
    assert seen["embeddings"].dtype == torch.bfloat16
