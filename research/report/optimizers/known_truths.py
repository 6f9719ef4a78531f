"""What is known of optimizers from elsewhere, looked for in the rows of a comparison.

A comparison that contradicts what is known says something of itself first: of its budget, its
search spaces, a fault. So each statement is checked wherever its workloads and optimizers were
run, and what does not come out is reported like what does.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from research import stats
from research.report.page import Html, paragraph, table

Outcome = Literal["holds", "does not hold", "undecided", "not run"]
Row = Mapping[str, Any]


class Finding(NamedTuple):
    """What the rows say of a statement, with the numbers it rests on."""

    outcome: Outcome
    evidence: str


class Truth(NamedTuple):
    """A statement with its source, and how it is looked for."""

    statement: str
    source: str
    look: Callable[["Finals"], Finding]


class Finals(NamedTuple):
    """Final runs of the compared studies, at the greatest length of each workload.

    ``curves[workload, optimizer, schedule][seed]`` is the validation score at the evaluated steps,
    infinite from where a training diverged.
    """

    curves: Mapping[tuple[str, str, str], Mapping[int, np.ndarray]]
    steps: Mapping[str, np.ndarray]  # evaluated steps of each workload
    targets: Mapping[str, float]

    def of(self, workload: str, optimizer: str, schedules: Sequence[str]) -> dict[int, np.ndarray]:
        """The curves of an optimizer, with the first of these schedules that was run."""
        for schedule in schedules:
            found = self.curves.get((workload, optimizer, schedule))
            if found:
                return dict(found)
        return {}

    def schedules(self) -> list[str]:
        """Schedules in the order of how many entrants have them."""
        names = [schedule for _, _, schedule in self.curves]
        return sorted(dict.fromkeys(names), key=lambda name: (-names.count(name), name))


def finals(rows: Iterable[Row], targets: Mapping[str, float]) -> Finals:
    """The final runs among the rows of a comparison.

    Args:
        rows: of all studies and phases.
        targets: of each workload.
    """
    kept = [r for r in rows if r["settings"]["phase"] == "final" and not r["settings"]["study"]]
    longest: dict[str, int] = {}
    for row in kept:
        settings = row["settings"]
        longest[settings["workload"]] = max(longest.get(settings["workload"], 0), settings["steps"])
    curves: dict[tuple[str, str, str], dict[int, np.ndarray]] = {}
    steps: dict[str, np.ndarray] = {}
    for row in kept:
        settings, result = row["settings"], row["result"]
        workload = settings["workload"]
        if settings["steps"] == longest[workload]:
            cell = (workload, settings["optimizer"], settings["schedule"])
            scores = [math.inf if s is None else s for s in result["validation_score"]]
            curve = np.array(scores, np.float64)
            if row["status"] == "diverged":
                curve[-1] = np.inf
            curves.setdefault(cell, {})[settings["seed"]] = curve
            steps[workload] = np.array(result["steps"])
    return Finals(curves, steps, targets)


def momentum_is_faster(workload: str, factor: float) -> Callable[[Finals], Finding]:
    """Heavy ball reaches the target in at most 1/factor of gradient descent's steps, every seed.

    Gradient descent that never reaches it counts as reaching it at the last step: the ratio is
    then a lower bound, which may leave it undecided.
    """

    def look(found: Finals) -> Finding:
        own = ["constant", *found.schedules()]
        plain, heavy = (found.of(workload, name, own) for name in ("sgd", "momentum"))
        seeds = sorted(plain.keys() & heavy.keys())
        if not seeds or workload not in found.targets:
            return Finding("not run", f"{workload} with sgd and momentum")
        steps, target = found.steps[workload], found.targets[workload]
        ratios, bounded = [], False
        for seed in seeds:
            slow, fast = (_first(curve[seed], steps, target) for curve in (plain, heavy))
            if fast is None:
                return Finding("does not hold", f"momentum missed the target with seed {seed}")
            bounded |= slow is None
            ratios.append((steps[-1] if slow is None else slow) / fast)
        least = "at least " if bounded else ""
        text = f"{least}{np.median(ratios):.1f} times as fast (median of {len(seeds)} seeds)"
        if min(ratios) >= factor:
            return Finding("holds", text)
        return Finding("undecided" if bounded else "does not hold", text)

    return look


def is_ordered(
    workload: str, better_first: Sequence[str], *, margin: float = 0.0
) -> Callable[[Finals], Finding]:
    """Each optimizer's final score is below the next one's, by paired differences over seeds.

    It holds where the whole 95 % t interval of every mean difference (better minus next) lies
    below the margin, does not where the whole of one lies above, and is undecided otherwise.

    Args:
        workload: where.
        better_first: optimizers, the one with the lowest score first.
        margin: what the first may be worse by and still count as as good.
    """

    def look(found: Finals) -> Finding:
        outcomes, texts = [], []
        for better, worse in itertools.pairwise(better_first):
            own = found.schedules()
            one, other = (found.of(workload, name, own) for name in (better, worse))
            seeds = sorted(one.keys() & other.keys())
            if len(seeds) < 2:
                return Finding("not run", f"{workload} with {better} and {worse}")
            pairs = np.array([[curves[s][-1] for s in seeds] for curves in (one, other)])
            low, high = _interval(pairs)
            outcomes.append(
                "holds" if high < margin else "does not hold" if low > margin else "undecided"
            )
            texts.append(f"{better} - {worse} = {_difference(pairs):.3g} [{low:.3g}, {high:.3g}]")
        worst = max(outcomes, key=("holds", "undecided", "does not hold").index)
        return Finding(worst, f"{workload}: {'; '.join(texts)}")

    return look


def everywhere(better: str, worse: str) -> Callable[[Finals], Finding]:
    """On no workload is the first optimizer's final score clearly above the second's."""

    def look(found: Finals) -> Finding:
        seen, texts = [], []
        for workload in dict.fromkeys(workload for workload, _, _ in found.curves):
            finding = is_ordered(workload, (better, worse))(found)
            if finding.outcome != "not run":
                seen.append(finding.outcome)
                texts.append(finding.evidence)
        if not seen:
            return Finding("not run", f"{better} and {worse} on one workload")
        return Finding("does not hold" if "does not hold" in seen else "holds", ". ".join(texts))

    return look


TRUTHS = (
    Truth(
        "Heavy ball is faster than gradient descent at condition number 100, about 10 times",
        "Polyak 1964: the rates are (κ - 1)/(κ + 1) and (√κ - 1)/(√κ + 1)",
        momentum_is_faster("quadratic_1e2", 2.0),
    ),
    Truth(
        "Heavy ball is faster than gradient descent at condition number 10,000, about 100 times",
        "Polyak 1964",
        momentum_is_faster("quadratic_1e4", 5.0),
    ),
    Truth(
        "On a character model Muon is ahead of AdamW, and AdamW of SGD",
        "Jordan et al. 2024; Zhang et al., Why Transformers Need Adam, NeurIPS 2024",
        is_ordered("char_lm", ("muon", "adamw", "sgd")),
    ),
    Truth(
        "Tuned Adam is nowhere behind tuned momentum, which its search space contains",
        "Choi et al., On Empirical Comparisons of Optimizers for Deep Learning, 2019",
        everywhere("adam", "momentum"),
    ),
    Truth(
        "On a convolutional network momentum is at most a point of error behind Adam",
        "Wilson et al., The Marginal Value of Adaptive Gradient Methods, NeurIPS 2017",
        is_ordered("fashion_lenet", ("momentum", "adam"), margin=0.01),
    ),
    Truth(
        "Where most classes are rare, Adam is ahead of SGD",
        "Kunstner et al., Heavy-Tailed Class Imbalance, NeurIPS 2024",
        is_ordered("heavy_tailed", ("adam", "sgd")),
    ),
)


def truth_table(found: Sequence[tuple[Truth, Finding]]) -> Html:
    """What came of each statement; those that nothing was run for are in the last line."""
    rows = [
        [truth.statement, truth.source, finding.outcome, finding.evidence]
        for truth, finding in found
        if finding.outcome != "not run"
    ]
    missing = [truth.statement for truth, finding in found if finding.outcome == "not run"]
    note = (
        "Looked for in the final runs at each workload's longest horizon, by validation score. "
        "Differences are means over seeds with 95 % t intervals: they speak of the settings that "
        "one search found, as the comparison of the reference with itself shows."
    )
    if missing:
        note += f" Not looked for, as it was not run: {'; '.join(missing)}."
    if not rows:
        return paragraph(note, class_="note")
    headers = ["Statement", "Source", "Here", "Evidence"]
    return table(headers, [("", rows)], text_columns=range(4), note=note)


def truth_rows(found: Sequence[tuple[Truth, Finding]]) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [
        {"statement": truth.statement, "source": truth.source, **finding._asdict()}
        for truth, finding in found
    ]


def look_up(found: Finals) -> list[tuple[Truth, Finding]]:
    """What the final runs say of each of the known truths."""
    return [(truth, truth.look(found)) for truth in TRUTHS]


def _first(curve: np.ndarray, steps: np.ndarray, target: float) -> int | None:
    reached = np.flatnonzero(curve <= target)
    return int(steps[reached[0]]) if reached.size else None


def _difference(pairs: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.mean(pairs[0]) - np.mean(pairs[1]))


def _interval(pairs: np.ndarray) -> tuple[float, float]:
    """Student's t interval of the mean difference; infinite where one of the two diverged."""
    one_lost, other_lost = (bool(np.isinf(scores).any()) for scores in pairs)
    if one_lost and other_lost:
        return -math.inf, math.inf
    if one_lost or other_lost:
        return (math.inf, math.inf) if one_lost else (-math.inf, -math.inf)
    interval = stats.mean_interval(pairs[0] - pairs[1])
    return interval.low, interval.high
