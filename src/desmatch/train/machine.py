"""How a stage uses the machine: threads, memory, and the dtype of its products."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

from desmatch.runs import processor_name

if TYPE_CHECKING:
    from desmatch.recipe import MachineConfig


def set_threads(machine: MachineConfig) -> None:
    """Let torch use the recipe's number of threads; without one, as OMP_NUM_THREADS says."""
    if machine.num_threads:
        torch.set_num_threads(machine.num_threads)


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
