from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from desmatch.cli import main
from desmatch.schema import Special


def test_transformers_alone_gives_the_runs_logits(finished_run, sample_folder, tmp_path, capsys):
    out = tmp_path / "plain"
    assert main(["export", str(finished_run), "--to", "hf", "--out", str(out)]) == 0
    assert "BertForMaskedLM" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForMaskedLM.from_pretrained(out).eval()
    lines = (sample_folder / "test.tsv").read_text().splitlines()
    a, b = zip(*(line.split("\t") for line in lines), strict=True)
    batch = tokenizer(list(a), list(b), padding=True, return_tensors="pt")
    with torch.inference_mode():
        at_cls = model(**batch).logits[:, 0].double()
    logits = (at_cls[:, Special.YES] - at_cls[:, Special.NO]).numpy()
    ours = pq.read_table(finished_run / "predictions" / "test.parquet")["logit_forward"]
    np.testing.assert_allclose(logits, ours.to_numpy(), atol=1e-5)


def test_an_export_replaces_nothing(finished_run, tmp_path, capsys):
    (tmp_path / "kept").write_text("mine")
    assert main(["export", str(finished_run), "--out", str(tmp_path)]) == 2
    assert "is there already; name a new folder" in capsys.readouterr().err
    assert (tmp_path / "kept").read_text() == "mine"


@pytest.mark.parametrize("words", [["--precision", "int8"], ["--graphs", "one"], ["--with-rows"]])
def test_what_onnx_alone_knows_is_refused_elsewhere(words, finished_run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(finished_run), "--to", "torch", *words, "--out", str(out)]) == 2
    assert f"{' '.join(words)}: a choice of --to onnx alone" in capsys.readouterr().err
    assert not out.exists()
