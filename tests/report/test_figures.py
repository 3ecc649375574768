import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from desmatch.metrics.intervals import Interval
from desmatch.report import figures

LABELS = np.array([0, 1, 0, 1, 1, 0])
SCORES = np.array([0.1, 0.9, 0.4, 0.35, 0.8, 0.0])
HISTORY = [{"step": step, "loss": 1 / (1 + step)} for step in range(5)] + [
    {"step": 4, "roc_auc": 0.8}
]
HISTORY_OF_FOLDS = [{**line, "fold": fold} for fold in range(2) for line in HISTORY]
BUILDERS = {
    "training": lambda: figures.training_figure(HISTORY),
    "folds": lambda: figures.training_figure(HISTORY_OF_FOLDS),
    "roc": lambda: figures.roc_figure(LABELS, SCORES, Interval(0.7, 0.9)),
    "overlay": lambda: figures.roc_overlay_figure({"x": (LABELS, SCORES), "y": (LABELS, SCORES)}),
    "precision": lambda: figures.precision_figure(LABELS, SCORES),
    "reliability": lambda: figures.reliability_figure(LABELS, SCORES),
    "scores": lambda: figures.score_figure(LABELS, SCORES, SCORES),
    "lengths": lambda: figures.length_figure({"train": np.array([3, 4, 9]), "test": np.array([])}),
    "components": lambda: figures.component_figure(np.array([2, 2, 2, 3, 50])),
    "weights": lambda: figures.weight_figure(np.array([0.5, 0.9, 1.0, 1.6])),
    "depth": lambda: figures.depth_figure(
        [f"layer {k}" for k in range(40)],
        {"start": np.arange(1.0, 41), "end": np.full(40, np.nan)},
        y_label="norm",
        is_log=True,
    ),
}


@pytest.fixture(params=BUILDERS)
def build(request):
    return BUILDERS[request.param]


def test_axes_are_labeled(build):
    for axes in build().axes:
        assert axes.get_xlabel() or axes.get_shared_x_axes().get_siblings(axes)
        assert axes.get_ylabel()


def test_stacked_scores_hold_every_row_once():
    patches = figures.score_figure(LABELS, SCORES, SCORES[:2]).axes[0].patches
    different, both, test = (patch.get_data() for patch in patches)
    assert different.values.sum() == pytest.approx(50)
    assert both.values.sum() == pytest.approx(100)
    np.testing.assert_array_equal(both.baseline, different.values)
    assert test.values.sum() == pytest.approx(100)


def test_lengths_are_shares_of_each_file():
    rng = np.random.default_rng(0)
    lengths = {"train": rng.integers(0, 20, 500), "test": rng.integers(0, 300, 7)}
    for patch in figures.length_figure(lengths).axes[0].patches:
        data = patch.get_data()
        assert data.values @ np.diff(data.edges) == pytest.approx(100, abs=15)


def test_a_long_loss_is_drawn_as_means():
    history = [{"step": step, "loss": step % 2} for step in range(10_000)]
    line = figures.training_figure(history).axes[0].lines[0]
    assert len(line.get_xdata()) == figures.CURVE_POINTS
    np.testing.assert_allclose(line.get_ydata(), 0.5)


def test_each_fold_has_its_lines():
    left, right = figures.training_figure(HISTORY_OF_FOLDS).axes
    assert [line.get_label() for line in left.lines] == ["loss, fold 0", "loss, fold 1"]
    assert [line.get_label() for line in right.lines] == ["AUC, fold 0", "AUC, fold 1"]


def tied():
    rng = np.random.default_rng(0)
    return np.arange(80) % 2, rng.random(80).round(2)


def points(figure):
    """The points of the second line with the scores that are named at them."""
    line = figure.axes[0].lines[1]
    notes = vars(line)["notes_of_points"]
    named = [float(note.split()[1]) if note != "no row" else np.inf for note in notes]
    return zip(*line.get_data(), named, strict=True)


def test_the_score_named_at_a_point_of_the_roc_gives_its_shares():
    labels, scores = tied()
    for false, true, threshold in points(figures.roc_figure(labels, scores, None)):
        assert np.mean(scores[labels == 0] >= threshold) == pytest.approx(false)
        assert np.mean(scores[labels == 1] >= threshold) == pytest.approx(true)


def test_the_score_named_at_a_precision_gives_it():
    labels, scores = tied()
    for recall, precision, threshold in points(figures.precision_figure(labels, scores)):
        called = scores >= threshold
        assert recall_score(labels, called) == pytest.approx(recall)
        assert precision_score(labels, called, zero_division=1) == pytest.approx(precision)


def test_a_forest_has_its_first_name_on_top():
    differences, intervals = np.array([0.01, -0.02]), np.array([[0.0, 0.02], [-0.03, -0.01]])
    axes = figures.forest_figure(["x", "y"], differences, intervals, x_label="difference").axes[0]
    x, y = axes.collections[0].get_offsets()
    assert tuple(x) == (0.01, 1)
    assert tuple(y) == (-0.02, 0)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]


def test_weights_beyond_the_figure_are_few():
    weights = np.random.default_rng(0).gamma(1.0, size=4_000)
    data = figures.weight_figure(weights).axes[0].patches[0].get_data()
    assert 99.4 <= data.values.sum() <= 100
