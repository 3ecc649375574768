import numpy as np
import pytest

from desmatch.report.page import ReportContent, write_report


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
        "interval": [0.9149, 0.9279],
        "validation_interval": [0.9173, 0.9254],
        "rows": 20_000,
        "log_loss": 0.3312,
        "brier": 0.1032,
        "calibration_error": 0.0312,
        "test_size": 25_000,
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
    labels = (rng.random(20_000) < 0.37).astype(int)
    logits = 1.5 * rng.normal(size=20_000) + 3 * labels - 1.5
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
    )


@pytest.fixture(scope="session")
def report(tmp_path_factory, content):
    """The path of a page that was written once; tests read it only."""
    return write_report(tmp_path_factory.mktemp("run"), content)
