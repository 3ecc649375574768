import io
import re
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

from desmatch.report import figures
from desmatch.report.svg import INK, PAGE_COLORS, for_page, short, to_png, to_svg

LABELS = np.array([0, 1, 0, 1, 1, 0])
SCORES = np.array([0.1, 0.9, 0.4, 0.35, 0.8, 0.0])


def reliability():
    return figures.reliability_figure(LABELS, SCORES)


def training():
    history = [{"step": step, "loss": 1 / (1 + step), "roc_auc": step / 9} for step in range(8)]
    return figures.training_figure(history)


def scores():
    return figures.score_figure(LABELS, SCORES, SCORES[:2])


BUILDERS = {"reliability": reliability, "training": training, "scores": scores}


@pytest.fixture(params=BUILDERS)
def build(request):
    return BUILDERS[request.param]


def test_svg_is_small_well_formed_and_takes_the_color_of_its_page(build):
    svg = to_svg(build(), title="A <title>")
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "A <title>"
    assert "currentColor" in svg
    assert INK not in svg
    assert len(svg) < 20_000


def test_on_a_page_every_color_is_the_pages(build):
    svg, series = for_page(build(), name="x", title="x")
    assert set(re.findall(r"#[0-9a-f]{6}", svg)) == set()
    assert all(each.color in PAGE_COLORS.values() for each in series)


def test_svg_and_png_are_the_same_bytes_each_time(build):
    one, other = build(), build()
    assert for_page(one, name="x", title="x") == for_page(other, name="x", title="x")
    assert to_png(one) == to_png(other)


def test_the_page_has_the_legend_in_place_of_the_figure():
    figure = reliability()
    svg, series = for_page(figure, name="x", title="x")
    assert all(each.label not in svg for each in series)
    assert all(each.label in to_svg(figure, title="x") for each in series)


def test_png_has_a_transparent_ground():
    pixels = matplotlib.image.imread(io.BytesIO(to_png(reliability())))
    assert pixels[0, 0, 3] == 0
    assert pixels[..., 3].max() == 1


def test_ids_of_two_figures_differ():
    def ids(name):
        root = ElementTree.fromstring(for_page(reliability(), name=name, title=name)[0])
        return {each.get("id") for each in root.iter() if each.get("id")}

    assert ids("one")
    assert not ids("one") & ids("two")


def test_every_key_of_a_series_is_a_group_of_the_svg(build):
    svg, series = for_page(build(), name="plot", title="x")
    ids = {each.get("id") for each in ElementTree.fromstring(svg).iter()}
    keys = [key for each in series for key in each.keys]
    assert len(keys) == len(set(keys))
    assert set(keys) <= ids


def test_a_line_through_dots_belongs_to_the_dots():
    _, series = for_page(reliability(), name="x", title="x")
    assert [len(each.keys) for each in series] == [1, 2]


def test_the_dotted_line_has_no_points():
    _, (dotted, dots) = for_page(reliability(), name="x", title="x")
    assert dotted.is_dotted
    assert dotted.x == []
    assert dots.notes == [f"{rows} rows" for rows in (1, 1, 1, 1, 1, 1)]


@pytest.mark.parametrize("place", [0, -1])
def test_points_lie_where_the_svg_draws_them(place):
    svg, (loss, auc) = for_page(training(), name="x", title="x")
    root = ElementTree.fromstring(svg)
    for series in (loss, auc):
        group = next(each for each in root.iter() if each.get("id") == series.keys[0])
        path = next(each.get("d") for each in group.iter() if each.tag.endswith("path"))
        drawn = [tuple(map(float, pair)) for pair in re.findall(r"[ML] ?([\d.]+) ([\d.]+)", path)]
        assert series.places[place] == pytest.approx(drawn[place], abs=0.02)


def test_points_lie_inside_the_frame(build):
    for series in for_page(build(), name="x", title="x")[1]:
        top, bottom = series.frame
        assert all(top <= place[1] <= bottom for place in series.places)


def test_a_stacked_bar_tells_its_own_height():
    _, (different, same, _) = for_page(scores(), name="x", title="x")
    assert sum(different.y) == pytest.approx(50)
    assert sum(same.y) == pytest.approx(50)
    assert same.x_texts[0] == "0 to 0.025"


def test_a_bin_of_whole_numbers_is_told_by_them():
    _, (series,) = for_page(
        figures.length_figure({"train": np.arange(100)}), name="x", title="x"
    )  # two lengths a bin
    assert series.x_texts[:2] == ["0 to 1", "2 to 3"]
    _, (series,) = for_page(figures.length_figure({"train": np.arange(9)}), name="x", title="x")
    assert series.x_texts[:2] == ["0", "1"]


def test_twin_axes_share_the_name_of_the_step():
    _, series = for_page(training(), name="x", title="x")
    assert [(each.x_name, each.y_name) for each in series] == [
        ("step", "loss"),
        ("step", "validation AUC"),
    ]


def test_a_dollar_in_a_role_is_not_mathematics():
    figure = figures.length_figure({r"$\frac{": np.array([1, 2])})
    assert r"$\frac{" in to_svg(figure, title="x")


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (12345.0, "12,345"), (0.873142, "0.8731"), (1234.56, "1,234.6"), (0, "0"),
     (1.2e-05, "1.2e-05")],
)  # fmt: skip
def test_numbers_under_the_pointer_are_short(value, text):
    assert short(value) == text
