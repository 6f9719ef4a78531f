"""The figure of smaller searches: readable whatever number a bad trial ended at."""

import dataclasses
import re

import numpy as np
import pytest
from comparison_rows import TRUTHS, Comparison, Truth, rows_of, write_comparison

from research import plots
from research.report.optimizers import figures
from research.report.optimizers.cells import read_cells
from research.report.optimizers.design import read_design
from research.report.optimizers.outcomes import read_outcomes
from research.report.optimizers.studies import read_studies
from research.runlog import read_run

COMPARED = Comparison(truths={name: TRUTHS[name] for name in ("adamw", "muon", "sgd")},
                      workloads=("gru", "char_lm"), horizons=(60,), seeds=(1, 2),
                      aa_studies=0)  # fmt: skip
METRIC = "log10 of the excess loss over that at the start, averaged over directions"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The figure with its matplotlib axes; one trial of char_lm ended at 2e7."""
    kept = []
    monkeypatch.setattr(plots, "to_png", lambda figure: kept.append(figure) or b"png")

    def draw(compared, worst=2e7):
        rows = rows_of(compared)
        bad = next(row for row in rows if row["settings"]["phase"] == "search"
                   and row["settings"]["workload"] == "char_lm" and row["status"] == "finished"
                   and row["settings"]["hyperparameters"]["learning_rate"] > 5)  # fmt: skip
        bad["result"]["validation_score"][-1] = worst
        config = compared.config() | {"metrics": dict.fromkeys(compared.workloads, METRIC)}
        path = write_comparison(tmp_path / "run", compared, rows=rows, config=config)
        records = read_run(path)
        design = read_design(records)
        outcomes = read_outcomes(design, read_studies(design, read_cells(records, design)))
        seen = figures.look(design, None, list(design.entrants))
        figure = figures.best_of_figure(design, outcomes, seen)
        assert figure is not None
        return figure, kept[-1], seen

    return draw


def test_a_worst_score_does_not_set_the_axis_and_the_caption_says_so(drawn):
    figure, painted, _ = drawn(COMPARED)
    for axes in painted.axes:
        low, high = axes.get_ylim()
        assert high < 5
        assert all(low < y < high for line in axes.lines for y in np.asarray(line.get_ydata()))
    assert re.search(
        r"worst finite score of the workload, but with [\d.]+ on char LM \(as does one that ended "
        r"above it, the worst at 2e\+07\)\.",
        figure.shows,
    )


def test_an_ordinary_score_is_what_a_trial_that_diverged_counts_with(drawn):
    figure, _, _ = drawn(COMPARED, worst=0.9)
    assert "with the worst finite score of the workload." in figure.shows


def test_labels_of_an_axis_fit_beside_it(drawn):
    _, painted, _ = drawn(COMPARED)
    painted.draw_without_rendering()
    for axes in painted.axes:
        box = axes.yaxis.label.get_window_extent()
        assert box.height <= 1.2 * axes.bbox.height
        assert box.y0 >= 0
        assert box.x0 >= 0
        assert box.y1 <= painted.bbox.height


def test_entrants_of_one_colour_have_dashes_of_their_own_and_each_its_name(drawn):
    names = ("adam", "adamw", "lion", "momentum", "muon", "nadam", "rmsprop", "sgd", "soap")
    compared = dataclasses.replace(COMPARED, truths={name: Truth() for name in names})
    _, painted, seen = drawn(compared)
    assert set(seen.inks) == set(names)
    assert len({ink.colour for ink in seen.inks.values()}) < len(names)
    assert len(set(seen.inks.values())) == len(names)
    for axes in painted.axes:
        assert len([text for text in axes.texts if text.get_text()]) == len(names)
