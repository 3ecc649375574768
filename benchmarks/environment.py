"""What the libraries of the benchmarks read when they are imported."""

from __future__ import annotations

import os


def set_environment(threads: int) -> None:
    """Set the threads, one GPU at most, and no word or download of the libraries' own."""
    os.environ.update(
        OMP_NUM_THREADS=str(threads),
        TOKENIZERS_PARALLELISM="false",
        TRANSFORMERS_VERBOSITY="error",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        CUDA_VISIBLE_DEVICES=os.environ.get("CUDA_VISIBLE_DEVICES", "0"),
    )
