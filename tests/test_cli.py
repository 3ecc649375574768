from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from desmatch.arguments import TAKES_RECIPE, build_parser
from desmatch.cli import ACTS, main
from desmatch.data.align import read_reference_counts
from desmatch.stage_table import STAGES

PYTHON = [sys.executable, "-m", "desmatch"]


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from desmatch.cli import build_parser; build_parser().format_help(); "
        "heavy = {'torch', 'transformers', 'numpy', 'pyarrow', 'jsonargparse'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_verbs_stand_in_the_order_of_the_flow():
    text = build_parser().format_help()
    places = [text.index(f"    {stage.name}") for stage in STAGES]
    assert places == sorted(places)


def test_every_verb_has_its_work():
    text = build_parser().format_help()
    assert re.findall(r"^    ([a-z-]+)", text, re.MULTILINE) == list(ACTS)
    assert set(TAKES_RECIPE) < set(ACTS)
    with pytest.raises(SystemExit):
        build_parser().parse_args(["no such verb"])


def refusal(capsys, *words):
    """Run a command that must be refused; return what it printed."""
    assert main([str(word) for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"desmatch {words[0]}: error: ")
    assert "Traceback" not in printed.err
    return printed.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["run", "--out", "x"], "name the data: --data DIR"),
        (["run", "--out", "x", "--data", "none"], "none: no such folder"),
        (["run", "--out", "x", "--data", "none", "--train", "t"], "not both"),
        (["run", "--out", "x", "--recipe", "demmo"], "did you mean 'demo'?"),
        (["run", "--out", "x", "--sede", "1"], "--sede: no such option; did you mean 'seed'?"),
        (["run", "--out", "x", "--folds", "1"], "--folds: expected 2 or more, got 1"),
        (["run", "--out", "x", "--fold", "1"], "--fold: no such option"),
        (["tune", "--out", "x", "--data", "none"], "name the budget: --minutes N, --trials N"),
        (["tune", "--out", "x", "--data", "none", "--trials", "1"], "none: no such folder"),
        (["tune", "--out", "x", "--trials", "1", "--sede", "1"], "--sede: no such option"),
        (["tune", "demmo", "--out", "x", "--trials", "1"], "did you mean 'demo'?"),
        (["tune", "demo", "--out", "x", "--trials", "1", "--seed", "x"], "seed"),
        (["finetune", "none"], "none: no run"),
        (["submit"], "name the run"),
        (["submit", "--check", "f"], "--check needs --test"),
        (["predict", "none", "--test", "f"], "--test needs --out"),
    ],
)
def test_a_wrong_command_is_one_clear_error(capsys, tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    assert reason in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_malformed_rows_stop_a_run_before_anything_is_written(
    capsys, sample_folder, tmp_path, tiny_options
):
    bad = tmp_path / "bad.tsv"
    bad.write_text((sample_folder / "train.tsv").read_text() + "1 2\t\t1\n1 2\t3\n")
    words = ["run", "--recipe", "demo", "--train", bad, "--test", sample_folder / "test.tsv",
             "--out", tmp_path / "run", *tiny_options]  # fmt: skip
    error = refusal(capsys, *words)
    assert f"{bad}:301: " in error
    assert f"{bad}:302: " in error
    assert not (tmp_path / "run" / "prepared").exists()


def test_skip_bad_keeps_the_rejected_rows_and_a_bad_test_row_stays_an_error(
    capsys, sample_folder, tmp_path
):
    bad = tmp_path / "bad.tsv"
    bad.write_text((sample_folder / "train.tsv").read_text() + "1 2\t\t1\n")
    test = sample_folder / "test.tsv"
    words = ["prepare", "--recipe", "demo", "--train", bad, "--test", test, "--skip-bad",
             "--out", tmp_path / "run"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    assert "bad.tsv:301" in (tmp_path / "run" / "prepared" / "rejected.tsv").read_text()
    bad_test = tmp_path / "bad_test.tsv"
    bad_test.write_text(test.read_text() + "1\t\n")
    words[words.index(test)] = bad_test
    assert f"{bad_test}:61: " in refusal(capsys, *words)


def test_inspect_prints_the_figures_of_the_data(capsys, sample_folder):
    assert main(["inspect", str(sample_folder)]) == 0
    text = capsys.readouterr().out
    assert "train            300" in text
    assert "components, the largest of" in text
    assert "told apart with AUC" in text
    assert "test rows with a query of the labelled pairs" in text


def test_inspect_names_contradicting_rows_by_file_and_line(capsys, sample_folder, tmp_path):
    train = tmp_path / "train.tsv"
    rows = (sample_folder / "train.tsv").read_text()
    train.write_text(rows + "x\ty\t1\ny\tz\t1\nx\tz\t0\nz\ty\t0\n")
    words = ["inspect", "--train", str(train), "--test", str(sample_folder / "test.tsv")]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f"{train}:304 against line 302" in text
    assert f"{train}:303 against line 301, line 302" in text
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["graph"]["contradicting_rows"] == 2


def test_inspect_counts_files_alone(capsys, tmp_path):
    first, second, kept = (tmp_path / name for name in ("1.tsv", "2.tsv", "counts.json"))
    first.write_text("5 5 5\t6\n6 5\t5\n")
    second.write_text("6\t5 5 5\n1\t\n")
    words = ["inspect", "--unlabeled", first, "--unlabeled", second, "--counts", kept]
    assert f"{second}:2: expected ids in column 2" in refusal(capsys, *words)
    assert not kept.exists()
    assert main([str(word) for word in [*words, "--skip-bad"]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["unlabeled", "3", "4", "-", "27.27%", "3.7"]
    assert lines[-2:] == [
        "2 distinct ids, 1 of them frequent enough for a row of their own",
        "1 malformed rows were left out",
    ]
    assert read_reference_counts(kept) == {"5": 8, "6": 3}
    assert main(["inspect", "--unlabeled", str(first), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vocabulary"] == {"distinct_ids": 2, "kept_ids": 1}


def test_predict_and_check_a_submission_of_any_file(capsys, finished_run, sample_folder, tmp_path):
    test, out = sample_folder / "test.tsv", tmp_path / "scores.tsv"
    assert main(["predict", str(finished_run), "--test", str(test), "--out", str(out)]) == 0
    assert out.read_text() == (finished_run / "submission" / "result.tsv").read_text()
    assert main(["submit", "--check", str(out), "--test", str(test)]) == 0
    assert "cannot show whether its rows are in the order" in capsys.readouterr().out
    out.write_text(out.read_text() + "0.5\n")
    assert "61" in refusal(capsys, "submit", "--check", out, "--test", test)


def test_evaluate_on_known_labels(capsys, finished_run, sample_folder, tmp_path):
    labels = sample_folder / "test_labels.tsv"
    assert main(["evaluate", str(finished_run), "--labels", str(labels)]) == 0
    assert "95 % interval" in capsys.readouterr().out
    short = tmp_path / "short.tsv"
    short.write_text("1\n0\n")
    assert "2 labels for 60 scores" in refusal(capsys, "evaluate", finished_run, "--labels", short)
    short.write_text("1\nyes\n")
    assert "short.tsv:2: expected 0 or 1, got 'yes'" in refusal(
        capsys, "evaluate", finished_run, "--labels", short
    )


def test_a_missing_label_file_and_a_read_only_folder_are_no_tracebacks(
    capsys, finished_run, sample_folder
):
    assert "cannot be read" in refusal(
        capsys, "evaluate", finished_run, "--labels", finished_run / "none.tsv"
    )
    words = ["run", "--data", sample_folder, "--out", "/proc/desmatch"]
    assert "/proc/" in refusal(capsys, *words)


def test_an_unknown_verb_exits_with_two():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*PYTHON, "rnu"], capture_output=True, text=True, check=False,
                          env=environment)  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
