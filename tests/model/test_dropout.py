from __future__ import annotations

import pytest
import torch

from desmatch.model.dropout import BANK_SIZE, BankDropout, Dropout, use_bank_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_of_p_is_dropped_and_the_rest_is_scaled(dtype):
    torch.manual_seed(0)
    dropped = BankDropout(0.1)(torch.ones(1000, 1000, dtype=dtype))
    assert dropped.dtype == dtype
    assert (dropped == 0).double().mean().item() == pytest.approx(0.1, abs=0.002)
    assert dropped.max().item() == pytest.approx(1 / 0.9, rel=0.005)
    assert dropped.double().mean().item() == pytest.approx(1, abs=0.005)


def test_the_gradient_passes_where_the_value_does():
    x = torch.randn(50, 50, requires_grad=True)
    dropped = BankDropout(0.5)(x)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad * x, dropped)


def test_masks_are_a_function_of_the_seed_and_differ_between_calls():
    drop, x = BankDropout(0.3), torch.ones(4000)
    torch.manual_seed(1)
    first, second = drop(x), drop(x)
    torch.manual_seed(1)
    torch.testing.assert_close(drop(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dropout", [Dropout, BankDropout])
def test_a_branch_is_dropped_out_before_it_is_added(dropout):
    residual, branch = torch.randn(40, 50), torch.randn(40, 50)
    drop = dropout(0.25)
    torch.manual_seed(2)
    added = drop.add(residual, branch)
    torch.manual_seed(2)
    torch.testing.assert_close(added, residual + drop(branch))
    torch.testing.assert_close(drop.eval().add(residual, branch), residual + branch)


def test_evaluation_and_p_zero_change_nothing():
    x = torch.randn(7)
    assert BankDropout(0.3).eval()(x) is x
    assert BankDropout(0.0)(x) is x


def test_a_tensor_larger_than_the_bank_is_dropped_out_too():
    dropped = BankDropout(0.25)(torch.ones(BANK_SIZE + 1))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.002)


def test_all_dropouts_of_a_model_are_replaced_and_its_weights_stay(tiny_model):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    use_bank_dropout(tiny_model)
    found = [module for module in tiny_model.modules() if isinstance(module, torch.nn.Dropout)]
    assert [type(module) for module in found] == [BankDropout] * 7
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items()
    )
