from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from desmatch.cli import main
from desmatch.data.batches import assemble
from desmatch.data.vocabulary import Vocabulary
from desmatch.deploy import export_onnx
from desmatch.errors import UserError
from desmatch.matcher import PairMatcher
from desmatch.metrics.roc import roc_auc
from desmatch.model.graph import SideBySide, write_graphs, write_one_graph
from desmatch.schema import Special
from desmatch.serve.session import (
    MANIFEST,
    MemberSession,
    SavedMember,
    ServedModel,
    padded_rows,
)
from desmatch.stages import load_run
from tests.conftest import encode_lists
from tests.model.conftest import build, name_of


@pytest.fixture(scope="module")
def test_pairs(sample_folder):
    lines = (sample_folder / "test.tsv").read_text().splitlines()
    return [tuple(line.split("\t")) for line in lines]


def test_an_exported_run_scores_the_test_as_the_run_did(exported_folder, finished_run, test_pairs):
    served = ServedModel.load(exported_folder, num_threads=1)
    said = served.score(*map(list, zip(*test_pairs, strict=True)))
    table = pq.read_table(finished_run / "predictions" / "test.parquet")
    for name, ours in said.columns().items():
        np.testing.assert_allclose(ours, table[name].to_numpy(), atol=1e-5)


def test_a_pair_is_scored_alike_alone_and_among_others(exported_folder, test_pairs):
    served = ServedModel.load(exported_folder, num_threads=1)
    together = served.score(*map(list, zip(*test_pairs, strict=True))).scores
    alone = [served.score([a], [b]).scores[0] for a, b in test_pairs]
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_one_order_is_the_forward_half(exported_folder, test_pairs):
    both = ServedModel.load(exported_folder).score(*map(list, zip(*test_pairs, strict=True)))
    one = ServedModel.load(exported_folder, both_orders=False)
    said = one.score(*map(list, zip(*test_pairs, strict=True)))
    np.testing.assert_allclose(said.scores, expit(both.forward), atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"position": "absolute", "norm": "post"},
        {"position": "relative", "norm": "deepnorm", "head": "naive-bayes"},
        {"position": "rotary", "norm": "pre", "head": "classifier", "pooling": "cls-mean"},
    ],
    ids=name_of,
)
def test_a_graph_gives_the_logits_of_any_encoder_and_head(changes, tmp_path):
    import onnxruntime

    model = build(**changes, num_hidden_layers=1)
    write_graphs([model], [tmp_path / "0.onnx"])
    session = onnxruntime.InferenceSession(tmp_path / "0.onnx")
    for shape in ((1, 5), (3, 11)):
        rng = np.random.default_rng(0)
        ids = rng.integers(7, 40, shape)
        mask = (np.arange(shape[1]) < rng.integers(2, shape[1] + 1, shape[0])[:, None]) * 1
        inputs = {"input_ids": ids * mask, "attention_mask": mask}
        found = session.run(None, inputs)[0]
        expected = SideBySide([model])(*map(as_tensor, inputs.values())).detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)


def as_tensor(array):
    import torch

    return torch.from_numpy(array)


def test_models_share_a_graph_or_have_one_each(tmp_path):
    import onnxruntime

    models = [build(), build()]
    with_other_weights(models[1])
    write_graphs(models, [tmp_path / "0.onnx", tmp_path / "1.onnx"])
    write_one_graph(models, tmp_path / "both.onnx")
    inputs = {"input_ids": np.arange(7, 19).reshape(2, 6), "attention_mask": np.ones((2, 6), int)}
    apart = [onnxruntime.InferenceSession(tmp_path / f"{k}.onnx").run(None, inputs)[0]
             for k in (0, 1)]  # fmt: skip
    both = onnxruntime.InferenceSession(tmp_path / "both.onnx").run(None, inputs)[0]
    np.testing.assert_allclose(both, np.concatenate(apart, axis=1), atol=1e-5)
    assert np.abs(apart[0] - apart[1]).max() > 1e-3


def with_other_weights(model):
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_fewer_bits_lose_little_and_the_manifest_says_how_much(finished_run, tmp_path, precision):
    manifest = export_onnx(load_run(finished_run), tmp_path / "out", precision=precision)
    parity = manifest["parity"]["model"]
    assert json.loads((tmp_path / "out" / MANIFEST).read_text()) == manifest
    assert 0 < parity["largest_difference_of_probability"] < 0.1
    table = pq.read_table(finished_run / "predictions" / "validation.parquet")
    assert parity["rows"] == len(table)
    exact = roc_auc(table["label"].to_numpy(), table["score"].to_numpy())
    assert parity["roc_auc"] - parity["difference_of_roc_auc"] == pytest.approx(exact)


def test_a_program_of_torch_gives_the_models_logits(finished_run, tmp_path):
    import torch

    out = tmp_path / "program"
    assert main(["export", str(finished_run), "--to", "torch", "--out", str(out)]) == 0
    vocabulary = Vocabulary.load(out)
    matcher = PairMatcher.from_pretrained(finished_run)
    pairs = [("1 2 3", "2 3"), ("4", "5 6 7 8 9")]
    encoded = vocabulary.encode(*map(list, zip(*pairs, strict=True)))
    inputs = padded_rows(encoded, np.arange(2), np.zeros(2, bool))
    program = torch.export.load(out / "model.pt2").module()
    logits = program(*map(torch.from_numpy, inputs.values()))[:, 0].detach().numpy()
    np.testing.assert_allclose(logits, matcher.decision_function(pairs).forward, atol=1e-5)


texts = st.lists(st.integers(7, 30), min_size=1, max_size=6)


@given(
    pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=5),
    asked=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=6),
)
def test_padded_rows_are_the_assembled_pairs_and_padding(pairs, asked):
    encoded = encode_lists(pairs)
    rows = np.array([row % len(pairs) for row, _ in asked], np.int64)
    swapped = np.array([is_swapped for _, is_swapped in asked], bool)
    flat = assemble(encoded, rows, swapped)
    inputs = padded_rows(encoded, rows, swapped)
    assert inputs["input_ids"].shape == (len(asked), max([1, *flat.lengths]))
    assert {each.dtype for each in inputs.values()} == {np.dtype(np.int64)}
    assert inputs["attention_mask"].sum(axis=1).tolist() == flat.lengths.tolist()
    is_token = inputs["attention_mask"] == 1
    assert inputs["input_ids"][is_token].tolist() == flat.ids.tolist()
    assert (inputs["input_ids"][~is_token] == Special.PAD).all()


def test_a_graph_whose_names_are_no_text_is_refused(tmp_path, exported_folder, capsys):
    graph = exported_folder / "model" / "0.onnx"
    name = b"LayerNormalization"
    assert name in graph.read_bytes()
    (tmp_path / graph.name).write_bytes(graph.read_bytes().replace(name, b"\x9c" * len(name)))
    with pytest.raises(UserError, match=r"0\.onnx: not a graph that can be run .*; export again"):
        MemberSession.load(tmp_path, SavedMember((graph.name,), 1))
    assert capsys.readouterr().out == ""


def test_a_graph_that_opens_and_cannot_be_run_is_refused(tmp_path, exported_folder):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(exported_folder / "model" / "0.onnx")
    weight = next(each for each in graph.graph.initializer if list(each.dims) == [16, 32])
    weight.CopyFrom(numpy_helper.from_array(np.zeros((17, 32), np.float32), weight.name))
    onnx.save(graph, tmp_path / "0.onnx")
    with pytest.raises(UserError, match=r"0\.onnx: not a graph that can be run .*; export again"):
        MemberSession.load(tmp_path, SavedMember(("0.onnx",), 1))


def test_a_folder_that_is_no_export_is_refused_with_the_mend(tmp_path, exported_folder):
    with pytest.raises(UserError, match=r"no exported model \(needs serving\.json\)"):
        ServedModel.load(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(exported_folder, damaged)
    graph = damaged / "model" / "0.onnx"
    graph.write_bytes(bytes(graph.stat().st_size))
    with pytest.raises(UserError, match=r"0\.onnx: not a graph that can be run .*; export again"):
        ServedModel.load(damaged)


def test_unknown_ids_are_counted(exported_folder):
    served = ServedModel.load(exported_folder)
    known = served.members["model"].vocabulary.ids[0]
    assert served.count_unknown([f"{known} no-such-id", "nor-this"]) == 2


@pytest.mark.parametrize(
    ("words", "extra"),
    [(["serve", "MODEL"], "serve"), (["export", "RUN", "--to", "onnx", "--out", "OUT"], "onnx")],
)
def test_a_missing_extra_is_named(words, extra, finished_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("desmatch.errors.find_spec", lambda _: None)
    places = {"MODEL": tmp_path, "RUN": finished_run, "OUT": tmp_path / "out"}
    assert main([str(places.get(word, word)) for word in words]) == 2
    assert f"is not installed; pip install 'desmatch[{extra}]'" in capsys.readouterr().err
