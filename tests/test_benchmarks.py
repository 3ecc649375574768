from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from desmatch.model.batch import TrainingBatches, TrainingRows, Vocabularies
from desmatch.model.checkpoints import build_model
from desmatch.recipe_training import TrainingConfig
from desmatch.runs import seed_everything
from desmatch.train.pretrain import joint_objective
from tests.conftest import encode_lists

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def work(monkeypatch):
    """The module of useful work, found as the benchmarks find it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("train_work")


def long_pairs(num_pairs):
    """Pairs that fill a row of 64 cells each, so that no product has padding."""
    rng = np.random.default_rng(0)
    texts = rng.integers(7, 40, (num_pairs, 61))
    pairs = encode_lists([(text[:30].tolist(), text[30:].tolist()) for text in texts])
    return TrainingRows(pairs, np.zeros(num_pairs, np.int8))


@pytest.mark.parametrize("mlm_probability", [0.15, 0.9])
def test_useful_flops_are_those_of_the_products_less_what_no_loss_needs(work, mlm_probability):
    job = work.Job(BENCHMARKS, work.Shape(layers=2, width=64), 64, 8, 1, 1)
    seed_everything(0)
    model = build_model(job.recipe.model, vocab_size=40, max_length=64)
    config = TrainingConfig(batch_size=8, mlm_probability=mlm_probability)
    batch = TrainingBatches(long_pairs(8), config, Vocabularies(7, 40), seed=0, stage="toy")[0]
    inputs = ("input_ids", "attention_mask", "position_ids", "masked_cells", "pair_cells")
    with FlopCounterMode(display=False) as counter:
        output = model(**{name: batch[name] for name in inputs})
        joint_objective(model, 1.0)(output, batch).backward()
    tokens = work.packed_tokens(batch)
    assert tokens.lengths.tolist() == [64] * 8
    assert tokens.predicted.sum() == len(batch["masked_labels"]) + len(batch["pair_labels"])
    idle = int((tokens.lengths - tokens.predicted).sum())
    queries_and_attention = 6 * idle * (64**2 + 2 * 64 * 64)  # of the last layer
    useful = work.useful_flops(job.shape, 40, tokens)
    assert counter.get_total_flops() == useful + queries_and_attention


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("bench_*.py")), ids=lambda path: path.stem)
def test_a_benchmark_says_what_it_measures(path):
    done = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=True
    )
    assert "usage" in done.stdout
    assert "--quick" in done.stdout


@pytest.fixture
def cases(monkeypatch):
    """The module of made-up tests, found as the benchmarks find it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("validation_cases")


def texts_of(rows):
    return {*rows.a, *rows.b}


def test_a_test_drawn_row_by_row_parts_the_rows(cases, sample_folder):
    rows = cases.read_rows(sample_folder / "train.tsv")
    case = cases.row_by_row(rows, 0.25, np.random.default_rng(0))
    parts = [list(zip(*part, strict=True)) for part in (case.labelled, case.test)]
    assert [len(part) for part in parts] == [225, 75]
    assert sorted(parts[0] + parts[1]) == sorted(zip(*rows, strict=True))
    known = [bool({a, b} & texts_of(case.labelled)) for a, b, _ in parts[1]]
    assert case.known_share == np.mean(known)


def test_the_leaky_copy_repeats_queries_and_its_test_knows_none(cases):
    case = cases.leaky(800, np.random.default_rng(0))
    assert len(case.labelled.labels) == 800
    assert len(texts_of(case.labelled)) < 1.7 * 800
    assert case.known_share == 0
    assert {*case.labelled.labels} == {*case.test.labels} == {0, 1}


def test_the_drifted_copy_has_a_longer_test_with_newer_queries(cases):
    level, drifted = (cases.drifted(800, each, np.random.default_rng(0)) for each in (0.0, 1.0))
    assert drifted.test.lengths.mean() > drifted.labelled.lengths.mean() + 2
    assert drifted.known_share < level.known_share
    assert abs(level.test.lengths.mean() - level.labelled.lengths.mean()) < 0.7
