from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from desmatch.model.graph import write_graphs
from desmatch.serve.quantize import Range, quantize, smoothing_factors
from tests.model.conftest import build, name_of

ENCODERS = [
    {"position": "rotary", "norm": "post"},
    {"position": "relative", "norm": "pre", "head": "classifier", "pooling": "cls-mean"},
]


def calls(num_calls, seed=0):
    """Inputs of single pairs without padding."""
    rng = np.random.default_rng(seed)
    for length in rng.integers(5, 12, num_calls):
        ids = rng.integers(7, 40, (1, length))
        yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def padded(rows, length):
    """Calls of one row each as one call."""
    ids, mask = (
        np.stack([np.pad(row[name][0], (0, length - row[name].shape[1])) for row in rows])
        for name in ("input_ids", "attention_mask")
    )
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module", params=ENCODERS, ids=name_of)
def graphs(request, tmp_path_factory):
    """A graph, and the same in int8."""
    folder = tmp_path_factory.mktemp("graphs")
    write_graphs([build(**request.param, num_hidden_layers=1)], [folder / "fp32.onnx"])
    quantize(folder / "fp32.onnx", folder / "int8.onnx", precision="int8", calibration=calls(100))
    return folder / "fp32.onnx", folder / "int8.onnx"


def test_in_int8_a_row_does_not_see_those_that_share_its_call(graphs):
    session = onnxruntime.InferenceSession(graphs[1])
    rows = [*calls(6, seed=1)]
    alone = np.concatenate([session.run(None, row)[0] for row in rows])
    for length in (12, 17):
        together = session.run(None, padded(rows, length))[0]
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


def test_int8_is_near_fp32_and_all_products_with_weights_are_integer_ones(graphs):
    exact, integer = (onnxruntime.InferenceSession(path) for path in graphs)
    gaps = [np.abs(integer.run(None, row)[0] - exact.run(None, row)[0]) for row in calls(20, 2)]
    spread = np.std([exact.run(None, row)[0] for row in calls(20, 2)])
    assert 0 < np.median(gaps) < 0.05 * spread
    graph = onnx.load(graphs[1]).graph
    constants = {each.name for each in graph.initializer}
    floats = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    assert not [node.name for node in floats if node.input[1] in constants]
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMulIntegerToFloat") >= 4


def test_smoothing_gives_the_products_of_before_and_evens_the_channels_out():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 8)) * [1, 1, 1, 100, 1, 1, 1, 0]
    weight = rng.normal(size=(8, 5))
    seen = Range(x.min(axis=0), x.max(axis=0))
    factors = smoothing_factors(weight, seen)
    np.testing.assert_allclose((x / factors) @ (weight * factors[:, None]), x @ weight)
    spread = np.abs(x / factors).max(axis=0)[:7]
    assert spread.max() / spread.min() < np.abs(x).max() / np.abs(x[:, :3]).max() / 10


def test_int8_without_rows_to_calibrate_on_is_refused(graphs, tmp_path):
    with pytest.raises(ValueError, match="calibration: expected at least one call's inputs"):
        quantize(graphs[0], tmp_path / "x.onnx", precision="int8")
    assert not (tmp_path / "x.onnx").exists()
