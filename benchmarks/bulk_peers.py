"""The variants of bench_bulk.py: what scores a file of pairs in both orders. Shapes: B pairs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.special import expit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from desmatch.bulk import BulkPrecision

    Scores = NDArray[np.float64]
    Texts = list[tuple[str, str]]

MAX_LENGTH = 64
PEER_BATCH = 64


class Variant(Protocol):
    """What scores a file."""

    def score(self, test: Path) -> Scores:
        """Return (B,), the mean of the scores of both orders of each pair of a file."""
        ...


def read_texts(path: Path) -> Texts:
    """Read a file of pairs, labels left out."""
    with path.open(encoding="utf-8") as stream:
        rows = (line.rstrip("\n").split("\t") for line in stream)
        return [(row[0], row[1]) for row in rows]


def in_both_orders(score: Callable[[Texts], Scores], test: Path) -> Scores:
    """Return (B,), the mean of what a function says of both orders of a file's pairs."""
    pairs = read_texts(test)
    return (score(pairs) + score([(b, a) for a, b in pairs])) / 2


class Ours:
    """`desmatch predict`.

    Args:
        folder: With `run`.
        precision: Of matrix products.
    """

    def __init__(self, folder: Path, precision: BulkPrecision) -> None:
        self.folder = folder
        self.precision = precision

    def score(self, test: Path) -> Scores:
        """As `Variant.score`."""
        import pyarrow.parquet as pq

        from desmatch.bulk import Manner, predict_file
        from desmatch.stages import load_run

        out = self.folder / f"{self.precision}.parquet"
        manner = Manner(precision=self.precision)
        predict_file(load_run(self.folder / "run"), test, out, manner)
        return np.asarray(pq.read_table(out)["score"])


class Encoder:
    """sentence-transformers' CrossEncoder."""

    def __init__(self, folder: Path) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        self.model = CrossEncoder(str(folder / "plain"), max_length=MAX_LENGTH)
        self.activation = torch.nn.Softmax(dim=-1)

    def score(self, test: Path) -> Scores:
        """As `Variant.score`."""
        return in_both_orders(self._score, test)

    def _score(self, pairs: Texts) -> Scores:
        probs = self.model.predict(
            pairs, batch_size=PEER_BATCH, activation_fn=self.activation, show_progress_bar=False
        )
        return np.asarray(probs, np.float64)[:, 1]


class OnnxRuntime:
    """ONNX Runtime as its guide has it: weights in int8, one scale for what a call sends in."""

    def __init__(self, folder: Path) -> None:
        import torch
        from onnxruntime import InferenceSession, SessionOptions
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        plain = folder / "plain"
        self.tokenizer = AutoTokenizer.from_pretrained(str(plain))
        model = AutoModelForSequenceClassification.from_pretrained(str(plain)).eval()
        example = dict(self.tokenizer([("1", "2")] * 2, return_tensors="pt"))
        axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
        shapes = dict.fromkeys(example, axes)
        program = torch.onnx.export(model, (), kwargs=example, dynamic_shapes=shapes, dynamo=True,
                                    input_names=[*example], verbose=False)  # fmt: skip
        assert program is not None
        program.save(folder / "plain.onnx")
        quantize_dynamic(
            folder / "plain.onnx",
            folder / "plain-int8.onnx",
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
        options = SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        self.session = InferenceSession(str(folder / "plain-int8.onnx"), options)

    def score(self, test: Path) -> Scores:
        """As `Variant.score`."""
        return in_both_orders(self._score, test)

    def _score(self, pairs: Texts) -> Scores:
        order = sorted(range(len(pairs)), key=lambda at: -sum(map(len, pairs[at])))
        scores = np.empty(len(pairs))
        for start in range(0, len(pairs), PEER_BATCH):
            rows = order[start : start + PEER_BATCH]
            inputs = self.tokenizer([pairs[at] for at in rows], padding=True, truncation=True,
                                    max_length=MAX_LENGTH, return_tensors="np")  # fmt: skip
            logits = self.session.run(None, dict(inputs))[0]  # (B, 2)
            scores[rows] = expit(logits[:, 1] - logits[:, 0])
        return scores


class Pipeline:
    """transformers' pipeline."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import pipeline

        device = 0 if torch.cuda.is_available() else -1
        self.pipeline = pipeline("text-classification", str(folder / "plain"), device=device)

    def score(self, test: Path) -> Scores:
        """As `Variant.score`."""
        return in_both_orders(self._score, test)

    def _score(self, pairs: Texts) -> Scores:
        inputs = [{"text": a, "text_pair": b} for a, b in pairs]
        answers = self.pipeline(inputs, batch_size=PEER_BATCH, top_k=None, truncation=True)
        by_label = [{each["label"]: each["score"] for each in answer} for answer in answers]
        return np.array([each["LABEL_1"] for each in by_label])


VARIANTS: dict[str, Callable[[Path], Variant]] = {
    "fp32": lambda folder: Ours(folder, "fp32"),
    "bf16": lambda folder: Ours(folder, "bf16"),
    "int8": lambda folder: Ours(folder, "int8"),
    "encoder": Encoder,
    "onnx-int8": OnnxRuntime,
    "pipeline": Pipeline,
}
"""A variant's name to what makes it, from the folder of `run` and `plain`."""
