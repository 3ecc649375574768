import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from desmatch.report.comparison import write_comparison
from desmatch.report.content import ReportContent
from desmatch.report.page import write_report
from desmatch.runs import read_json, write_json


def _file(role, rows, positives):
    return {
        "role": role,
        "path": f"data/oppo/gaiic_track3_round1_{role}.tsv",
        "sha256": ["0123456789abcdef" * 4],
        "rows": rows,
        "distinct_texts": 2 * rows - rows // 7,
        "positives": positives,
        "oov_share": 0.0042,
        "mean_length": 6.73,
        "median_length": 6.0,
        "p99_length": 18.0,
    }


def _slices():
    values = {"length": ["1 to 9", "10 to 19", "20 or more"], "overlap": ["below 0.2", "0.2 to 0.6",
              "above 0.6"], "same_bag": ["yes", "no"]}  # fmt: skip
    for place, (name, value) in enumerate((n, v) for n, all_ in values.items() for v in all_):
        auc = None if value == "yes" else 0.94 - 0.015 * place
        yield {
            "slice": name,
            "value": value,
            "rows": 9_000 - 1_100 * place,
            "positives": 0.3 + 0.05 * place,
            "auc": auc,
            "interval": None if auc is None else [auc - 0.01, auc + 0.009],
        }


def _hard(row):
    texts = {"a": f"{row} 12 7 9 501", "b": f"12 {row + 3} 9 88 17 4"}
    near = {"file": 0, "line": 70 + row, "label": row % 2, "similarity": 0.83, **texts}
    return {
        "row": 31 * row,
        "file": 0,
        "line": 31 * row + 1,
        "label": 1 - row % 2,
        "score": row % 2 or 0.012,
        **texts,
        "nearest": [near, {**near, "similarity": 0.61}],
    }


ROWS = 30_000
CALIBRATION = {"auc": 0.9213, "log_loss": 0.3312, "brier": 0.1032, "calibration_error": 0.0312}
CARD = {
    "command": "desmatch train --recipe small --train train.tsv --test test.tsv",
    "recipe_name": "small",
    "recipe": {
        "seed": 7,
        "model": {"hidden_size": 256, "positions": "rotary"},
        "finetune": {"learning_rate": 3e-5, "num_train_epochs": 3.0, "fgm_epsilon": None},
    },
    "seed": 7,
    "revision": "f00dfeed" * 5,
    "versions": {"desmatch": "0.1.0", "torch": "2.13.0", "transformers": "5.17.0"},
    "machine": "AMD EPYC 9R14, 8 cores, 8 threads",
    "minutes": 42.25,
    "minutes_by_stage": {"pretrain": 35.0, "finetune": 7.25},
    "data": [_file("train", 100_000, 0.3712), _file("test", 25_000, None)],
    "graph": {
        "components": 51_234,
        "largest": 20_111,
        "repeated_rows": 312,
        "cut_rows": 1_204,
        "test_rows_with_known_query": 3_881,
        "test_rows_with_both_known": 120,
    },
    "validation": {
        "auc": 0.9213,
        "interval": [0.9121, 0.9250],
        "test_interval": [0.9149, 0.9279],
        "validation_interval": [0.9173, 0.9254],
        "rows": 20_000,
        "log_loss": 0.3312,
        "brier": 0.1032,
        "calibration_error": 0.0312,
        "test_size": 25_000,
        "components": 18_200,
        "positives": 0.3703,
        "headline": {
            "name": "weighted_auc",
            "value": 0.9187,
            "interval": [0.9121, 0.9250],
            "why": "The test is told from the labelled rows with an AUC of 0.63, so rows count "
            "as often as their like is in the test.",
        },
        "weighted_auc": 0.9187,
        "weighted_interval": [0.9121, 0.9250],
        "effective_rows": 14_321.4,
        "pr_auc": 0.8743,
        "auc_of_kept_weights": 0.9221,
        "folds": [{"fold": fold, "rows": 4_000, "auc": 0.92 + 0.002 * fold} for fold in range(5)],
        "calibration": {
            "none": CALIBRATION,
            "temperature": {**CALIBRATION, "log_loss": 0.3102, "temperature": 1.271},
            "isotonic": {**CALIBRATION, "auc": 0.9209, "log_loss": 0.3098},
        },
        "threshold": {
            "accuracy": {"value": 0.8612, "threshold": 0.512},
            "f1": {"value": 0.8122, "threshold": 0.431},
        },
        "order": {
            "mean_difference": 0.0213,
            "decision_flips": 0.0121,
            "auc_forward": 0.9205,
            "auc_backward": 0.9201,
            "auc_mean": 0.9213,
        },
        "slices": [*_slices()],
        "hardest": [_hard(row) for row in range(12)],
    },
    "drift": {
        "auc": 0.6312,
        "interval": [0.6251, 0.6377],
        "effective_share": 0.7161,
        "features": [
            {
                "name": "length",
                "auc": 0.588,
                "labelled_mean": 13.4,
                "test_mean": 15.2,
                "importance": 0.061,
            },
            {
                "name": "oov_share",
                "auc": 0.511,
                "labelled_mean": 0.0042,
                "test_mean": 0.0051,
                "importance": 0.003,
            },
            {
                "name": "overlap",
                "auc": 0.452,
                "labelled_mean": 0.41,
                "test_mean": 0.37,
                "importance": 0.022,
            },
        ],
    },
    "warnings": [
        "test: 3,881 of 25,000 rows touch a text of the training; their AUC may be higher",
        "the largest component holds 20 % of the training rows",
    ],
}


def _history(rng):
    for index in range(600):
        loss = 6 * np.exp(-index / 80) + 1.2 + 0.1 * rng.normal()
        yield {"stage": "pretrain", "step": 10 * index, "loss": loss, "learning_rate": 1e-4}
    for index in range(120):
        loss = 0.6 * np.exp(-index / 60) + 0.02 * rng.normal()
        yield {"stage": "finetune", "step": 10 * index, "loss": loss}
        if index % 12 == 11:
            yield {
                "stage": "finetune",
                "step": 10 * index,
                "roc_auc": 0.925 - 0.2 * np.exp(-index / 25),
            }


@pytest.fixture(scope="session")
def content():
    rng = np.random.default_rng(0)
    labels = (rng.random(ROWS) < 0.37).astype(int)
    logits = 1.5 * rng.normal(size=ROWS) + 3 * labels - 1.5
    return ReportContent(
        card=CARD,
        history=list(_history(rng)),
        labels=labels,
        scores=1 / (1 + np.exp(-1.3 * logits)),
        test_scores=rng.beta(0.6, 0.8, size=25_000),
        lengths={
            "train": rng.poisson(6, 20_000) + 1,
            "test": rng.poisson(6.5, 5_000) + 1,
            "unlabeled": np.minimum(rng.geometric(0.12, 5_000), 90),
        },
        component_sizes=rng.zipf(2.0, size=8_000) + 1,
        weights=rng.gamma(2.0, 0.5, size=8_000),
    )


@pytest.fixture(scope="session")
def report(tmp_path_factory, content):
    """The path of a page that was written once; tests read it only."""
    return write_report(tmp_path_factory.mktemp("run"), content)


def change_scores(run, change):
    path = run / "predictions" / "validation.parquet"
    table = pq.read_table(path)
    columns = {name: np.asarray(table[name]) for name in table.column_names}
    columns["honest_score"] = change(columns["honest_score"])
    pq.write_table(pa.table(columns), path)
    path.with_name("stage.json").unlink()  # its seal is of the file before


def copy_run(run, folder, *, learning_rate, change):
    for name in ("predictions", "prepared", "metrics"):
        shutil.copytree(run / name, folder / name)
    card = read_json(run / "card.json")
    card["recipe"]["finetune"]["learning_rate"] = learning_rate
    write_json(folder / "card.json", card)
    change_scores(folder, change)
    return folder


@pytest.fixture(scope="session")
def runs(finished_run, tmp_path_factory):
    """A run and two others that score the same rows: one by the labels, one at random."""
    folder = tmp_path_factory.mktemp("compared")
    labels = np.asarray(pq.read_table(finished_run / "predictions/validation.parquet")["label"])
    rng = np.random.default_rng(0)
    better = copy_run(
        finished_run, folder / "better", learning_rate=1.0,
        change=lambda scores: 0.5 * scores + 0.4 * labels,
    )  # fmt: skip
    worse = copy_run(
        finished_run, folder / "worse", learning_rate=2.0,
        change=lambda scores: rng.random(len(scores)),
    )  # fmt: skip
    return [finished_run, better, worse]


@pytest.fixture(scope="session")
def comparison(runs, tmp_path_factory):
    """The path of a page that compares the runs."""
    page = tmp_path_factory.mktemp("page") / "comparison.html"
    write_comparison(runs, page)
    return page
