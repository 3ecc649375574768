"""An ONNX graph in fewer bits.

Sources: onnxruntime.quantization (integer products, inputs quantized on the way, a scale for each
column of a matrix), onnxruntime.transformers.float16.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, assert_never

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

Precision = Literal["fp32", "fp16", "int8"]


def quantize(source: Path, target: Path, *, precision: Precision) -> None:
    """Write a graph of fp32 in another precision.

    Args:
        source: The graph.
        target: Another file.
        precision: fp32 copies it; fp16 halves the file, and on most processors no time; int8 makes
            the products of matrices integer ones.
    """
    match precision:
        case "fp32":
            shutil.copyfile(source, target)
        case "fp16":
            half = convert_float_to_float16(onnx.load(source), keep_io_types=True)
            onnx.save(half, target)
        case "int8":
            _to_int8(source, target)
        case _:
            assert_never(precision)


def _to_int8(source: Path, target: Path) -> None:
    logging.getLogger().addFilter(_is_no_hint)
    try:
        with TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantize_dynamic(
                prepared,
                target,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["MatMul", "Gemm"],
            )
    finally:
        logging.getLogger().removeFilter(_is_no_hint)


def _is_no_hint(record: logging.LogRecord) -> bool:
    """Keep onnxruntime's advice to do what was just done from the terminal."""
    return "pre-processing before quantization" not in record.getMessage()
