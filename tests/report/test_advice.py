import pytest

from desmatch.report.advice import next_steps


def history(aucs):
    return [{"stage": "finetuned", "step": step, "roc_auc": auc} for step, auc in enumerate(aucs)]


def texts(card, lines=()):
    return [step.text for step in next_steps(card, lines)]


def test_a_run_without_a_fault_needs_nothing():
    card = {
        "validation": {
            "auc": 0.9,
            "interval": [0.89, 0.91],
            "test_size": 100,
            "slices": [{"slice": "length", "value": "5", "auc": 0.89, "interval": [0.87, 0.92]}],
            "calibration": {"none": {"log_loss": 0.3}, "temperature": {"log_loss": 0.2999}},
            "order": {"decision_flips": 0.001},
        },
        "graph": {"test_rows_with_known_query": 1},
        "drift": {"auc": 0.52, "features": []},
        "recipe": {"model": {"init": "checkpoint"}, "finetune": {"swap_probability": 0.5}},
    }
    assert next_steps(card, history([0.7, 0.8, 0.9, 0.9])) == []
    assert next_steps({}) == []


@pytest.mark.parametrize(
    ("card", "option", "words"),
    [
        ({"validation": {"test_size": 100}, "graph": {"test_rows_with_known_query": 23}},
         "--validation.random_share 0.05", "23% of the test's rows"),
        ({"validation": {"interval": [0.8, 0.9]}}, "--folds 5", "0.100 wide"),
        ({"drift": {"auc": 0.7, "features": [{"name": "oov_share", "auc": 0.6}]}}, "",
         "above all by share of unknown ids (AUC 0.70"),
        ({"recipe": {"model": {"init": None}}}, "--init CHECKPOINT --reference-counts counts.json",
         "began at random"),
        ({"validation": {"auc": 0.9, "slices": [
            {"slice": "rare_ids", "value": "1 to 2", "auc": 0.7, "interval": [0.6, 0.8]},
            {"slice": "length", "value": "5", "auc": 0.89, "interval": [0.8, 0.95]}]}}, "",
         "Weakest slice: rare ids, 1 to 2, AUC 0.700 against 0.900"),
        ({"validation": {"order": {"decision_flips": 0.1}},
          "recipe": {"finetune": {"swap_probability": 0.0}}},
         "--finetune.swap_probability 0.5", "10.0% of the decisions turn"),
        ({"validation": {"calibration": {"none": {"log_loss": 0.5}, "isotonic": {"log_loss": 0.4},
                                         "temperature": {"log_loss": 0.45}}}}, "",
         "isotonic calibration takes it from 0.5000 to 0.4000"),
    ],
)  # fmt: skip
def test_a_fault_calls_for_its_step(card, option, words):
    (step,) = next_steps(card)
    assert words in step.text
    assert step.option == option


def test_rows_that_are_held_out_singly_have_answered_for_known_queries():
    card = {"validation": {"test_size": 100, "expected_test_auc": 0.9},
            "graph": {"test_rows_with_known_query": 23}}  # fmt: skip
    assert next_steps(card) == []


def test_an_auc_that_still_rises_asks_for_more_epochs():
    (step,) = next_steps({}, history([0.7, 0.8, 0.9]))
    assert "still rose" in step.text
    assert step.option == "--finetune.num_train_epochs"


def test_an_auc_that_was_best_early_asks_for_fewer():
    (text,) = texts({}, history([0.9, 0.8, 0.8, 0.8]))
    assert "best early" in text


def test_only_the_last_stage_and_one_fold_are_judged():
    lines = [{"stage": "pretrained", "roc_auc": 0.9}, *history([0.8, 0.8])]
    assert next_steps({}, lines) == []
    folds = [{**line, "fold": fold} for fold in (0, 1) for line in history([0.8, 0.85, 0.85])]
    assert next_steps({}, folds) == []


def test_a_step_that_a_warning_names_is_not_said_again():
    card = {"recipe": {"model": {"init": None}}}
    (step,) = next_steps(card)
    assert next_steps({**card, "warnings": [f"x; {step.option} would be better"]}) == []
