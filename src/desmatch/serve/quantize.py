"""An ONNX graph in fewer bits.

In int8 a product x W + b becomes one of integers: the channels of x are divided by factors that the
rows of W are multiplied by, so that no channel decides the scale of all (SmoothQuant, arXiv
2211.10438); x has one scale, found on calibration rows, each column of W its own. All that is
settled before a call, so the score of a pair does not depend on the pairs that share its call.

Shapes: N cells of a call, K channels of x, M columns of W. Source of fp16:
onnxruntime.transformers.float16.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, assert_never

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Inputs = Mapping[str, NDArray[np.int64]]

Precision = Literal["fp32", "fp16", "int8"]

SMOOTHING = 0.7
"""How much of a channel's range W takes over: 0 none, 1 all."""

CONTRIB = "com.microsoft"
"""ONNX Runtime's own operators."""


def quantize(
    source: Path, target: Path, *, precision: Precision, calibration: Iterable[Inputs] = ()
) -> None:
    """Write a graph of fp32 in another precision.

    Args:
        source: The graph.
        target: Another file.
        precision: fp32 copies it; fp16 halves the file, and on most processors no time; int8 makes
            the products with weights integer ones.
        calibration: Of int8: inputs without padding, some hundred pairs like those to be scored.

    Raises:
        ValueError: int8 without calibration.
    """
    match precision:
        case "fp32":
            shutil.copyfile(source, target)
        case "fp16":
            half = convert_float_to_float16(onnx.load(source), keep_io_types=True)
            onnx.save(half, target)
        case "int8":
            _to_int8(source, target, calibration)
        case _:
            assert_never(precision)


class Product(NamedTuple):
    """x W + b in a graph.

    Attributes:
        x: Name of (..., K).
        weight: (K, M).
        bias: Name of (M,), or "".
        result: Name of (..., M).
    """

    x: str
    weight: NDArray[np.float32]
    bias: str
    result: str


class Range(NamedTuple):
    """The least and the greatest value of every channel, (K,) each."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]


def _to_int8(source: Path, target: Path, calibration: Iterable[Inputs]) -> None:
    with TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        products = _products(model.graph)
        ranges = _ranges(model, {each.x for each in products.values()}, calibration, prepared)
    _replace(model, {name: _integers(each, ranges[each.x]) for name, each in products.items()})
    onnx.save(model, target)


def _products(graph: Any) -> dict[str, Product]:  # noqa: ANN401 - onnx has no types
    """Return the products with a constant matrix, by the name of their result."""
    constants = {each.name: each for each in graph.initializer if len(each.dims) == 2}
    found = {}
    for node in graph.node:
        if node.op_type not in ("Gemm", "MatMul") or node.input[1] not in constants:
            continue
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if given.get("transA") or any(given.get(name, 1) != 1 for name in ("alpha", "beta")):
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        bias = node.input[2] if len(node.input) > 2 else ""
        product = Product(
            node.input[0], weight.T if given.get("transB") else weight, bias, node.output[0]
        )
        found[product.result] = product
    return found


def _ranges(
    model: Any,  # noqa: ANN401 - onnx has no types
    names: Iterable[str],
    calibration: Iterable[Inputs],
    scratch: Path,
) -> dict[str, Range]:
    """Return the ranges of inner results; the graph is written to `scratch` with these as outputs.

    Raises:
        ValueError: There is nothing to find them on.
    """
    names, watched = sorted(names), onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    onnx.save(watched, scratch)
    session = onnxruntime.InferenceSession(str(scratch), providers=["CPUExecutionProvider"])
    seen: dict[str, Range] = {}
    for inputs in calibration:
        for name, values in zip(names, session.run(names, dict(inputs)), strict=True):
            cells = values.reshape(-1, values.shape[-1])  # (N, K)
            low, high = seen.get(name, (cells[0], cells[0]))
            seen[name] = Range(
                np.minimum(low, cells.min(axis=0)), np.maximum(high, cells.max(axis=0))
            )
    if names and not seen:
        raise ValueError("calibration: expected at least one call's inputs, got none")
    return seen


def _integers(product: Product, seen: Range) -> tuple[list[Any], list[Any]]:
    """Return the nodes that take a product's place, and their constants."""
    factors = smoothing_factors(product.weight, seen)
    low = min(0.0, float((seen.low / factors).min()))
    high = max(0.0, float((seen.high / factors).max()))
    step = (high - low) / 255 or 1.0
    columns, steps = _in_columns(product.weight * factors[:, None])
    values = {
        "reciprocal": (1 / factors).astype(np.float32),
        "step": np.float32(step),
        "zero": np.uint8(round(-low / step)),
        "columns": columns,
        "steps": steps,
    }
    name = {key: f"{product.result}.{key}" for key in (*values, "smoothed", "integers")}
    nodes = [
        helper.make_node("Mul", [product.x, name["reciprocal"]], [name["smoothed"]]),
        helper.make_node(
            "QuantizeLinear", [name["smoothed"], name["step"], name["zero"]], [name["integers"]]
        ),
        helper.make_node(
            "MatMulIntegerToFloat",
            [*(name[key] for key in ("integers", "columns", "step", "steps", "zero")), "",
             product.bias],
            [product.result],
            domain=CONTRIB,
        ),
    ]  # fmt: skip
    return nodes, [numpy_helper.from_array(np.asarray(values[key]), name[key]) for key in values]


def smoothing_factors(weight: NDArray[np.float32], seen: Range) -> NDArray[np.float32]:
    """Return (K,), what every channel of x is divided by: max|x|^s / max|W|^(1 - s).

    Args:
        weight: (K, M).
        seen: Of x.
    """
    tiny = np.float32(1e-6)  # a channel that is always 0, or is never read
    of_x = np.maximum(np.maximum(np.abs(seen.low), np.abs(seen.high)), tiny)
    of_weight = np.maximum(np.abs(weight).max(axis=1), tiny)
    factors: NDArray[np.float32] = of_x**SMOOTHING / of_weight ** (1 - SMOOTHING)
    return factors


def _in_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a matrix as integers of -127 to 127, (K, M), and the step of each column, (M,)."""
    greatest = np.abs(weight).max(axis=0)
    steps = np.where(greatest > 0, greatest / 127, 1).astype(np.float32)
    return np.round(weight / steps).astype(np.int8), steps


def _replace(model: Any, made: Mapping[str, tuple[Sequence[Any], Sequence[Any]]]) -> None:  # noqa: ANN401
    """Put nodes in the places of those whose result they give; drop what nobody reads then."""
    graph = model.graph
    nodes = [
        new
        for node in graph.node
        for new in (made[node.output[0]][0] if node.output[0] in made else [node])
    ]
    read = {name for node in nodes for name in node.input}
    constants = [each for each in graph.initializer if each.name in read]
    constants += [each for _, new in made.values() for each in new]
    for field, values in ((graph.node, nodes), (graph.initializer, constants)):
        del field[:]
        field.extend(values)
    if all(each.domain != CONTRIB for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
