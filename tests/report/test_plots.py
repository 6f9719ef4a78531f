"""Figures are deterministic, leave no trace in matplotlib, and survive thin data."""

import io
import sys

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from research import plots, stats
from research.plots import Curve, Heard, LengthError, Ratio, Strip, Trial
from research.plots.style import error_floor, spread

INKS = plots.palette(["a", "b"])
STEPS = np.array([10, 20, 30])


def curves():
    good = Curve("a", STEPS, np.array([[0.5, 0.9, 1.0], [0.6, 0.8, 0.95]]))
    lost = Curve("b", STEPS, np.array([[0.5, 0.7, 0.8], [0.4, np.nan, np.nan]]))
    return {"one": [good, lost], "two": [good], "none": []}


def draw_curves():
    scales: list[plots.Scale] = ["error", "linear", "log"]
    return plots.learning_curves(
        curves(), INKS, y_labels=["x", "y", "z"], scales=scales, targets=[0.6, 0.7, None]
    )


def draw_sensitivity(score=0.9):
    trials = {"a": [Trial(0.1, score, True), Trial(1.0, None)], "b": [Trial(0.01, 100 * score)]}
    return plots.learning_rate_sensitivity(trials, INKS, y_label="error", labels={})


def draw_two_rows():
    rates = np.geomspace(0.01, 100, 9).tolist()
    trials = {
        f"{lost}": [Trial(rate, None if i < lost else 0.1 + rate, i == 8)
                    for i, rate in enumerate(rates)]
        for lost in (0, 1, 2, 3, 9, 4)
    }  # fmt: skip
    return plots.learning_rate_sensitivity(trials, INKS, y_label="error", labels={})


def draw_only_diverged():
    trials = {"a": [Trial(0.1, None), Trial(1.0, None)]}
    return plots.learning_rate_sensitivity(trials, INKS, y_label="error", labels={})


def draw_strips():
    panels = {"p": {"a": [0.9, 0.95, 1.0], "b": []}, "q": {"a": [0.9], "b": [-0.8, np.inf]}}
    return plots.score_strips(panels, INKS, x_label="error", labels={}, reference="a")


def draw_reached():
    some = stats.reached_curve(stats.times([10, 20, 30], [True, True, False]))
    never = stats.reached_curve(stats.times([30, 30], [False, False]))
    panels = {"p": {"a": some, "b": never, "grey": some}}
    return plots.reached_curves(panels, INKS, labels={"b": "Never"}, horizons=[30.0])


def draw_profiles():
    factors = np.linspace(1, 4, 7)
    profiles = {"a": np.linspace(0.5, 1, 7), "b": np.zeros(7), "grey": np.ones(7)}
    return plots.profile_curves(factors, profiles, INKS, labels={}, problems=2)


def draw_best_of():
    scores = np.random.default_rng(0).lognormal(size=(2, 16))
    panels = {"p": {name: stats.best_of(row) for name, row in zip("ab", scores, strict=True)},
              "q": {"a": stats.best_of([1.0, 2.0, 3.0, 4.0])}}  # fmt: skip
    return plots.best_of_curves(panels, INKS, labels={}, y_labels=["x", "y"])


def draw_ratios():
    bounds = {"a": Ratio(0.5, 0.4, 0.7), "b": Ratio(2.0, np.nan, np.nan, ">"),
              "c": Ratio(1.5, 1.0, 2.0, "?"), "d": Ratio(0.4, 0.3, 0.5, "<")}  # fmt: skip
    return plots.ratio_dots({"p": bounds, "q": {"b": bounds["a"]}}, INKS, x_label="x", labels={})


def draw_ranks():
    scores = np.random.default_rng(0).normal(size=(3, 2, 4))
    return plots.rank_dots(stats.rank_stability(scores), ["a", "grey"], INKS, {})


def draw_confusion():
    counts = np.array([[5, 1], [0, 6], [2, 0]])
    return plots.confusion_matrices({"p": counts}, ["x", "y", "inserted"], ["x", "y"])


def draw_perfect_confusion():
    return plots.confusion_matrices({"p": np.diag([5, 6])}, ["x", "y"], ["x", "y"])


def draw_lengths():
    series = {"a": [LengthError("1", 0.1, 0.0, 0.3, 4), LengthError("2 to 9", 0.2, 0.1, 0.3, 1)]}
    return plots.error_by_length(series, INKS)


def heard(**changes):
    log_posteriors = np.log(np.full((5, 3), 0.1) + 0.7 * np.eye(3)[[0, 1, 1, 0, 2]])
    log_mel = np.random.default_rng(0).normal(size=(10, 8))
    made = Heard(log_mel, log_posteriors, np.array([0, 1, 1, 0, 0]), 0.01, 0.02)
    return made._replace(**changes)


def draw_alignment():
    item = heard()
    return plots.alignment_figure(
        item.log_mel,
        item.log_posteriors,
        item.alignment,
        hop_seconds=0.01,
        frame_seconds=0.02,
        names=["-", "x", "y"],
    )


def draw_two_alignments():
    waveform = np.random.default_rng(0).normal(size=800)
    whole = heard(waveform=waveform, sample_rate=8000.0, boundaries=np.array([[0.02, 0.07]]))
    return plots.alignment_figures([whole, whole._replace(boundaries=None)], names=["-", "x", "y"])


def draw_posteriors():
    return plots.posterior_rows({"a": heard(title="said x"), "b": heard()}, names=["-", "x", "y"])


def draw_rates():
    inner, outer = stats.Interval(0.08, 0.12), stats.Interval(0.05, 0.15)
    rows = {"a": Strip([0.05, 0.15], 0.1, inner, outer), "b": Strip([0.2], note="1 of 2 diverged")}
    return plots.rate_strips({"p": rows, "q": {"b": Strip([])}}, INKS, x_label="x", labels={})


def draw_differences():
    rows = {"a": Strip([-0.05, 0.02], -0.01), "b": Strip([0.1], 0.1)}
    return plots.rate_strips({"p": rows}, INKS, x_label="x", labels={}, zero=True)


def draw_diagnostics():
    panels = {"p": {"x": {"a": [1.0, 2.0], "b": [np.nan]}}, "q": {"y": {"b": [3.0]}}}
    return plots.diagnostic_strips(panels, INKS, labels={"x": "X"}, groups={"a": "A", "b": "B"})


def draw_reliability():
    bins = np.array([0.2, np.nan, 0.9]), np.array([0.1, np.nan, 0.95]), np.array([5, 0, 20])
    panels = {"p": {"a": bins}, "q": {"b": bins}}
    return plots.reliability_panels(panels, INKS, groups={"a": "A", "b": "B"})


DRAWN = [
    draw_curves,
    draw_sensitivity,
    draw_two_rows,
    draw_only_diverged,
    draw_strips,
    draw_reached,
    draw_profiles,
    draw_best_of,
    draw_ratios,
    draw_ranks,
    draw_confusion,
    draw_perfect_confusion,
    draw_lengths,
    draw_alignment,
    draw_two_alignments,
    draw_posteriors,
    draw_rates,
    draw_differences,
    draw_diagnostics,
    draw_reliability,
]


@pytest.mark.parametrize("draw", DRAWN)
def test_a_figure_is_the_same_every_time_and_shows_something(draw):
    png = plots.to_png(draw())
    assert png == plots.to_png(draw())
    pixels = matplotlib.image.imread(io.BytesIO(png))[..., :3]
    assert pixels.shape[1] == 1170
    assert 0.005 < (pixels < 0.99).any(axis=-1).mean() < 0.6
    assert b"Software" not in png
    assert b"tIME" not in png


def test_the_users_settings_neither_change_a_figure_nor_are_changed():
    png = plots.to_png(draw_strips())
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "axes.grid": True}):
        assert plots.to_png(draw_strips()) == png
        assert matplotlib.rcParams["font.size"] == 20


def test_plots_leave_pyplot_alone():
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_a_name_keeps_its_ink_when_names_follow_it():
    few, many = plots.palette(["a", "b"]), plots.palette(["a", "b", *map(str, range(12))])
    assert few["a"] == many["a"]
    assert few["b"] == many["b"]
    assert len(set(many.values())) == len(many)


def test_spread_keeps_order_and_distance_and_moves_little():
    positions = [0.5, 0.1, 0.52, 0.51, 0.9]
    moved = spread(positions, 0.05)
    assert np.argsort(moved).tolist() == np.argsort(positions).tolist()
    assert min(np.diff(sorted(moved))) == pytest.approx(0.05)
    assert moved[1] == pytest.approx(0.1)
    assert np.mean(moved) == pytest.approx(np.mean(positions))


def test_an_error_of_zero_lies_below_every_other():
    assert 0 < error_floor(np.array([0.0, 0.3, 0.001])) < 0.001
    assert error_floor(np.array([0.0])) > 0
    assert error_floor(np.array([np.nan, 0.2])) == pytest.approx(0.1)


def axes_texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_digit_that_was_not_said_is_in_another_colour():
    top, bottom = draw_alignment().axes
    colours = {text.get_text(): text.get_color() for text in bottom.texts}
    assert [text.get_text() for text in top.texts] == ["x"]
    assert colours["x"] != colours["y"]


def test_every_curve_is_named_even_one_that_lost_a_seed_at_once():
    gone = Curve("b", STEPS, np.array([[0.5, 0.7, 0.8], [np.nan, np.nan, np.nan]]))
    whole = Curve("a", STEPS, np.array([[0.5, 0.9, 1.0]]))
    figure = plots.learning_curves(
        {"p": [whole, gone]}, INKS, y_labels=["y"], scales=["error"], labels={"b": "Lost"}
    )
    assert sorted(axes_texts(figure)) == ["Lost", "a"]


def test_confusions_show_every_count():
    assert axes_texts(draw_confusion()) == ["5", "1", "6", "2"]


def test_methods_without_a_colour_are_drawn_without_a_label():
    assert sorted(axes_texts(draw_reached())) == ["Never", "a"]
    assert sorted(axes_texts(draw_profiles())) == ["a", "b"]


def test_diverged_trials_are_crosses_above_every_score():
    figure = draw_sensitivity()
    crosses = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "x"]
    assert [np.asarray(cross.get_xdata()).tolist() for cross in crosses] == [[1.0]]
    axes = figure.axes[0]
    top = axes.transAxes.inverted().transform(axes.transData.transform((0.1, 90.0)))[1]
    assert top < np.asarray(crosses[0].get_ydata()).item()


def test_a_method_that_lost_a_run_has_no_mean():
    whole, lost = draw_strips().axes
    assert len(whole.lines) > len(lost.lines)
    assert "1 diverged" in axes_texts(draw_strips())


def test_true_boundaries_are_drawn_where_they_lie():
    def brackets(figure, column):
        lines = figure.axes[2 + column].lines
        return {round(float(np.asarray(line.get_xdata())[0]), 3) for line in lines} - {0.02, 0.06}

    # The alignment has a bar from 0.02 to 0.06; a bracket begins and ends at 0.02 and 0.07.
    assert brackets(draw_two_alignments(), 0) == {0.07}
    assert brackets(draw_two_alignments(), 1) == set()


def test_a_row_without_a_mean_says_why():
    first, second = draw_rates().axes
    assert [text.get_text() for text in first.texts] == ["1 of 2 diverged"]
    ends = [tuple(np.asarray(line.get_xdata()).tolist()) for line in first.lines]
    assert ends == [(0.05, 0.15), (0.08, 0.12), (0.1, 0.1)]  # intervals and stroke of the other
    assert not second.lines


def test_an_empty_bin_of_confidence_has_no_dot():
    drawn = draw_reliability().axes[0].collections
    sizes = [np.asarray(dots.get_offsets()).shape for dots in drawn]
    assert sizes == [(2, 2)]
