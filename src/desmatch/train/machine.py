"""How a stage uses the machine: threads, memory, and the dtype of its products."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import torch

from desmatch.runs import processor_name, usable_cores

if TYPE_CHECKING:
    from desmatch.recipe import MachineConfig


def use_machine(machine: MachineConfig) -> None:
    """Let torch use the machine as the recipe says.

    On a CPU that is the number of threads; without one, OMP_NUM_THREADS says it. On a GPU sums are
    taken in one order at every run, and what is left of fp32 products runs in TF32 unless the
    recipe's precision is fp32.
    """
    if machine.num_threads:
        torch.set_num_threads(machine.num_threads)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS' own condition
        torch.use_deterministic_algorithms(mode=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision("high" if uses_bf16(machine) else "highest")


def loader_workers() -> int:
    """Return how many processes build batches: a GPU is faster than one of them."""
    if not torch.cuda.is_available():
        return 0
    return min(MOST_WORKERS, max(usable_cores() - 1, 1))


MOST_WORKERS = 4


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free instead of giving it back: a fifth of a step on a CPU.

    Tensors of some megabytes are otherwise mapped, zeroed page by page and unmapped at each use.
    Elsewhere than on glibc nothing happens.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        for option, value in MALLOC_OPTIONS.items():
            libc.mallopt(option, value)


MALLOC_OPTIONS = {-3: 32 << 20, -1: 1 << 30, -2: 256 << 20}
"""Of mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, in bytes."""


def uses_bf16(machine: MachineConfig) -> bool:
    """Tell whether matrix products run in bfloat16: always, never, or where it is the faster one.

    With AMX it is. With AVX512-BF16 alone it was twice as fast as fp32 on an AMD processor and
    half as fast on an Intel one.
    """
    if machine.precision != "auto":
        return machine.precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and "AMD" in processor_name()
