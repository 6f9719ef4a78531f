"""What is known of optimizers from elsewhere, looked for in the rows of a comparison.

A comparison that contradicts what is known says something of itself first: of its budget, its
search spaces, a fault. So each statement is checked wherever its workloads and optimizers were
run, and what does not come out is reported like what does.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from research.report.optimizers.design import Design, Unit
from research.report.optimizers.outcomes import ALPHA, time_ratio
from research.report.optimizers.studies import (
    SetKey,
    Studies,
    as_times,
    compare_studies,
    shared,
)
from research.report.page import Html, paragraph, table
from research.stats import Comparison

Outcome = Literal["holds", "does not hold", "undecided", "not run"]


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
    """The compared studies at the greatest length of each workload that has final runs."""

    studies: Mapping[tuple[str, str, str], Studies]  # by workload, optimizer and schedule
    targets: Mapping[str, float]

    def of(self, workload: str, optimizer: str, schedules: Sequence[str]) -> Studies | None:
        """The studies of an optimizer, with the first of these schedules that was run."""
        found = (self.studies.get((workload, optimizer, schedule)) for schedule in schedules)
        return next((each for each in found if each is not None), None)

    def schedules(self) -> list[str]:
        """Schedules in the order of how many entrants have them."""
        names = [schedule for _, _, schedule in self.studies]
        return sorted(dict.fromkeys(names), key=lambda name: (-names.count(name), name))


def finals(design: Design, studies: Mapping[SetKey, Studies]) -> Finals:
    """What the statements are looked for in.

    Args:
        design: of the comparison.
        studies: all sets, of all horizons.
    """
    kept = [s for key, s in studies.items() if key[3] == 0 and s.values("validation")]
    longest: dict[str, int] = {}
    for each in kept:
        longest[each.workload] = max(longest.get(each.workload, 0), each.horizon)
    found = {}
    for each in kept:
        if each.horizon == longest[each.workload]:
            optimizer, _, schedule = each.entrant.partition("@")
            found[each.workload, optimizer, schedule or design.schedule or ""] = each
    return Finals(found, design.targets)


def momentum_is_faster(workload: str, factor: float) -> Callable[[Finals], Finding]:
    """Heavy ball reaches the target in at most 1/factor of gradient descent's steps.

    With one search each it has to with every seed; with several studies the 95 % interval of the
    ratio decides. Gradient descent that never reaches the target counts as reaching it at the last
    step: the ratio is then a lower bound, which may leave it undecided.
    """

    def look(found: Finals) -> Finding:
        own = ["constant", *found.schedules()]
        plain, heavy = (found.of(workload, name, own) for name in ("sgd", "momentum"))
        if plain is None or heavy is None or workload not in found.targets:
            return Finding("not run", f"{workload} with sgd and momentum")
        target = found.targets[workload]
        slow, fast = plain.times(target), heavy.times(target)
        if plain.unit == "study":
            return _faster_by_study(slow, fast, plain, factor)
        return _faster_by_seed(slow, fast, factor, f"{workload} with sgd and momentum")

    return look


_Times = Mapping[int, tuple[float, bool]]


def _faster_by_seed(plain: _Times, heavy: _Times, factor: float, what: str) -> Finding:
    seeds = shared(plain, heavy)
    if not seeds:
        return Finding("not run", what)
    missed = [seed for seed in seeds if not heavy[seed][1]]
    if missed:
        return Finding("does not hold", f"momentum missed the target with seed {missed[0]}")
    ratios = [plain[seed][0] / heavy[seed][0] for seed in seeds]
    bounded = not all(plain[seed][1] for seed in seeds)
    least = "at least " if bounded else ""
    text = f"{least}{np.median(ratios):.1f} times as fast (median of {len(seeds)} seeds)"
    if min(ratios) >= factor:
        return Finding("holds", text)
    return Finding("undecided" if bounded else "does not hold", text)


def _faster_by_study(plain: _Times, heavy: _Times, of: Studies, factor: float) -> Finding:
    slow, fast = as_times(plain, sorted(plain)), as_times(heavy, sorted(heavy))
    if not fast.reached.any():
        return Finding("does not hold", "momentum missed the target in every study")
    ratio, (low, high) = time_ratio(of, slow, fast)
    reached = f"the target is reached in {slow.reached.sum()} and {fast.reached.sum()} of "
    text = (
        f"{ratio:.1f} times as fast [{low:.2g}, {high:.2g}]; {reached}{slow.reached.size} studies"
    )
    # Whoever is late counts with the horizon: gradient descent is then slower than it seems, or
    # momentum is.
    if low >= factor and fast.reached.all():
        return Finding("holds", text)
    return Finding("does not hold" if high < factor and slow.reached.all() else "undecided", text)


def is_ordered(
    workload: str, better_first: Sequence[str], *, margin: float = 0.0
) -> Callable[[Finals], Finding]:
    """Each optimizer's final score is below the next one's, by the test of the report.

    It holds where the whole 95 % interval of every mean difference (better minus next) lies
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
            made = compare_studies(one, other, "validation") if one and other else None
            if one is None or made is None or made.pairs < 2:
                return Finding("not run", f"{workload} with {better} and {worse}")
            low, high = _interval(made, one.unit)
            outcomes.append(
                "holds" if high < margin else "does not hold" if low > margin else "undecided"
            )
            difference = f"{made.difference:.3g} [{low:.3g}, {high:.3g}]"
            if not math.isfinite(made.difference):
                lost = f"{made.failures} and {made.reference_failures}"
                difference = f"{lost} {'failed' if one.unit == 'study' else 'diverged'}"
            texts.append(f"{better} - {worse} = {difference}")
        worst = max(outcomes, key=("holds", "undecided", "does not hold").index)
        return Finding(worst, f"{workload}: {'; '.join(texts)}")

    return look


def everywhere(better: str, worse: str) -> Callable[[Finals], Finding]:
    """On no workload is the first optimizer's final score clearly above the second's."""

    def look(found: Finals) -> Finding:
        seen, texts = [], []
        for workload in dict.fromkeys(workload for workload, _, _ in found.studies):
            finding = is_ordered(workload, (better, worse))(found)
            if finding.outcome != "not run":
                seen.append(finding.outcome)
                texts.append(finding.evidence)
        if not seen:
            return Finding("not run", f"{better} and {worse} on one workload")
        if "does not hold" in seen:
            return Finding("does not hold", ". ".join(texts))
        return Finding("holds", f"no difference is clearly above zero: {'. '.join(texts)}")

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


def truth_table(design: Design, found: Sequence[tuple[Truth, Finding]]) -> Html:
    """What came of each statement; those that nothing was run for are in the last line."""
    rows = [
        [truth.statement, truth.source, finding.outcome, finding.evidence]
        for truth, finding in found
        if finding.outcome != "not run"
    ]
    missing = [truth.statement for truth, finding in found if finding.outcome == "not run"]
    differences = (
        "of means over studies with Welch's 95 % intervals: they speak of searches of this size. A "
        "study that failed decides where the rank test is at most 0.05"
        if design.studies > 1
        else "means over seeds with 95 % t intervals: they speak of the settings that one search "
        "found, as the comparison of the reference with itself shows"
    )
    note = (
        "Looked for in the final runs at each workload's longest horizon, by validation score. "
        f"Differences are {differences}."
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


def _interval(made: Comparison, unit: Unit) -> tuple[float, float]:
    """Of the difference; where one failed, infinite to the side that is known, or to both."""
    if math.isfinite(made.interval.low):
        return made.interval
    # A run that diverged with the same setting decides; a study that failed does where the test
    # of ranks says that it is no accident of the search.
    known = bool(made.failures) != bool(made.reference_failures) if unit == "seed" else (
        made.p_value <= ALPHA
    )  # fmt: skip
    if not known:
        return -math.inf, math.inf
    behind = made.failures > 0 if unit == "seed" else made.losses > made.wins
    return (math.inf, math.inf) if behind else (-math.inf, -math.inf)
