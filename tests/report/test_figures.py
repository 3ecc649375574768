import io
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

from desmatch.metrics.intervals import Interval
from desmatch.report import figures

LABELS = np.array([0, 1, 0, 1, 1, 0])
SCORES = np.array([0.1, 0.9, 0.4, 0.35, 0.8, 0.0])
HISTORY = [{"step": step, "loss": 1 / (1 + step)} for step in range(5)] + [
    {"step": 4, "roc_auc": 0.8}
]
BUILDERS = {
    "training": lambda: figures.training_figure(HISTORY),
    "roc": lambda: figures.roc_figure(LABELS, SCORES, Interval(0.7, 0.9)),
    "reliability": lambda: figures.reliability_figure(LABELS, SCORES),
    "scores": lambda: figures.score_figure(LABELS, SCORES, SCORES),
    "lengths": lambda: figures.length_figure({"train": np.array([3, 4, 9]), "test": np.array([])}),
    "components": lambda: figures.component_figure(np.array([2, 2, 2, 3, 50])),
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


def test_svg_is_small_well_formed_and_takes_the_color_of_its_page(build):
    svg = figures.to_svg(build(), title="A <title>")
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "A <title>"
    assert "currentColor" in svg
    assert figures.INK not in svg
    assert len(svg) < 20_000


def test_axes_are_labeled(build):
    for axes in build().axes:
        assert axes.get_xlabel() or axes.get_shared_x_axes().get_siblings(axes)
        assert axes.get_ylabel()


def test_svg_and_png_are_the_same_bytes_each_time(build):
    one, other = build(), build()
    assert figures.to_svg(one, title="x") == figures.to_svg(other, title="x")
    assert figures.to_png(one) == figures.to_png(other)


def test_png_has_a_transparent_ground(build):
    pixels = matplotlib.image.imread(io.BytesIO(figures.to_png(build())))
    assert pixels[0, 0, 3] == 0
    assert pixels[..., 3].max() == 1


def test_ids_of_two_figures_differ():
    def ids(title):
        root = ElementTree.fromstring(figures.to_svg(BUILDERS["roc"](), title=title))
        return {each.get("id") for each in root.iter() if each.get("id")}

    assert ids("one")
    assert not ids("one") & ids("two")


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


def test_a_dollar_in_a_role_is_not_mathematics():
    svg = figures.to_svg(figures.length_figure({r"$\frac{": np.array([1, 2])}), title="x")
    assert r"$\frac{" in svg
