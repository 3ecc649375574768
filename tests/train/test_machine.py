from __future__ import annotations

import pytest

from desmatch.recipe import MachineConfig
from desmatch.train.machine import MOST_WORKERS, loader_workers, uses_bf16


@pytest.mark.parametrize(
    ("processor", "has_bf16", "has_amx", "expected"),
    [
        ("AMD EPYC", True, False, True),
        ("Intel Xeon", True, False, False),  # half as fast as fp32 there
        ("Intel Xeon", True, True, True),
        ("AMD EPYC", False, False, False),
    ],
)
def test_bfloat16_is_chosen_where_it_is_the_faster_one(
    monkeypatch, processor, has_bf16, has_amx, expected
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr("desmatch.train.machine.processor_name", lambda: processor)
    assert uses_bf16(MachineConfig()) is expected
    assert uses_bf16(MachineConfig(precision="bf16"))
    assert not uses_bf16(MachineConfig(precision="fp32"))


def test_batches_are_built_beside_a_gpu_and_in_the_process_of_a_cpu(monkeypatch):
    for has_gpu, cores, expected in ((False, 16, 0), (True, 1, 1), (True, 3, 2), (True, 64, 4)):
        monkeypatch.setattr("torch.cuda.is_available", lambda has_gpu=has_gpu: has_gpu)
        monkeypatch.setattr("desmatch.train.machine.usable_cores", lambda cores=cores: cores)
        assert loader_workers() == expected <= MOST_WORKERS
