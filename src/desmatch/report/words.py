"""What the figures of a card are called on the page, and what to know of each."""

from __future__ import annotations

AUC_ROWS = (
    ("auc", ("test_interval",), "ROC AUC", "if the test's rows are like the held-out ones"),
    ("weighted_auc", ("weighted_interval",), "weighted ROC AUC",
     "each row counts as often as its like is in the test"),
    ("expected_test_auc", ("expected_test_interval", "interval"), "expected on the test",
     "with as many known queries as the test has"),
    ("auc", ("validation_interval",), "ROC AUC, these rows alone",
     "the interval leaves out the luck of the test's own rows"),
    ("auc_of_kept_weights", (), "ROC AUC of the kept weights",
     "chosen on these very rows, so it flatters"),
)  # fmt: skip
"""Key of a figure, keys of its interval, the first that is there counts, its name, and what to know
of it."""

OTHER_ROWS = (
    ("pr_auc", "PR AUC", "average precision; chance is the share of positives"),
    ("log_loss", "log loss", "nats a row; lower is better"),
    ("brier", "Brier score", "mean squared error of the scores; lower is better"),
    ("calibration_error", "calibration error", "mean distance of score and share of positives"),
    ("positives", "share of positives", "of the held-out rows"),
    ("rows", "rows", "held out"),
    ("components", "components", "of the query graph, held out as wholes"),
    ("effective_rows", "effective rows", "as many equal rows would say as much as the weighted"),
    ("test_size", "rows of the test", "the interval of the first line is for so many"),
    ("random_rows", "rows held out one by one", "they may share a query with training rows"),
    ("random_rows_with_known_query", "of these with a known query", ""),
    ("expected_test_rows", "rows that stand for the test", "with lone rows held out by components"),
    ("test_share_with_known_query", "share of the test with a known query", ""),
)
"""Key of a figure, its name, and what to know of it."""

COUNTS = {"rows", "components", "effective_rows", "test_size", "random_rows",
          "random_rows_with_known_query", "expected_test_rows"}  # fmt: skip

PLACED = {"headline", "interval", "test_interval", "validation_interval", "weighted_interval",
          "expected_test_interval", "folds", "slices", "calibration", "threshold", "order",
          "hardest", "standings", "selection", "combine",
          *(row[0] for row in AUC_ROWS), *(row[0] for row in OTHER_ROWS)}  # fmt: skip
"""Keys of card["validation"] that have their place; any other is listed by its name."""

HEADLINES = {
    "auc": "Validation AUC",
    "weighted_auc": "Validation AUC, weighted like the test",
    "expected_test_auc": "AUC expected on the test",
}
DRAWN_SIZES = "components_by_size"
"""A part of the graph's figures that the page draws."""

GRAPH_NAMES = {
    "components": "components",
    "largest": "rows of the largest",
    "split_components": "components cut, being too large",
    "cut_rows": "rows cut out of training",
    "repeated_rows": "rows repeated",
    "test_rows_with_known_query": "test rows that touch the training's graph",
    "test_rows_with_both_known": "test rows with both texts in it",
}
FEATURE_NAMES = {
    "length_difference": "difference of the lengths",
    "oov_share": "share of unknown ids",
    "rarest_count": "count of the rarest id",
    "mean_log_count": "mean log count of the ids",
    "is_same_bag": "same ids in any order",
    "degree": "pairs that share a text",
    "order_difference": "difference by order",
    "has_known_query": "has a known query",
}
CALIBRATIONS = {"none": "as they are", "temperature": "temperature", "isotonic": "isotonic"}
