"""What the numbers say, in a few sentences, and nothing that they do not."""

import math
from collections.abc import Sequence

from research import stats
from research.report.common import count, listed, percent, percent_range, spelled
from research.report.speech.design import Design
from research.report.speech.outcomes import ALPHA, Outcome, Rate, difference_of
from research.report.speech.trained import Trained

# From this label error rate on, the output says next to nothing about what was said.
_USELESS = 0.8
_NAMED = 8  # longer lists are counted, not spelled out


def verdict(design: Design, outcomes: Sequence[Outcome]) -> list[str]:
    """The best system and what cannot be told from it; the objectives; what is missing."""
    made = [o for o in outcomes if o.rate is not None]
    tail = _missing(design, outcomes)
    if not any(o.trained.finals for o in outcomes):
        return ["No final training is recorded, so nothing can be said of error rates yet.", *tail]
    if not made:
        none = "No system has finished all its trainings, so no average over speakers can be given."
        return [none, *_objectives(design, outcomes), *tail]
    order = sorted(made, key=lambda o: (_value(o), o.system))
    best = order[0]
    if _value(best) >= _USELESS:
        text = (
            f"No system has learned to recognise anything: the best, "
            f"{design.system_label(best.system)}, makes {_score(best.rate)} errors, and an empty "
            "answer makes 100 %."
        )
        return [text, *tail]
    speakers = len(best.trained.folds)
    where = f"on average over {count(speakers, 'held-out speaker')}"
    where = where if speakers > 1 else f"on {best.trained.folds[0]}"
    lead = (
        f"{design.system_label(best.system)} makes the fewest errors: a {design.metric} of "
        f"{_score(best.rate)} {where}."
    )
    if len(order) == 1:
        return [f"{lead} There is no other whole system to compare it with.", *tail]
    return [" ".join([lead, *_against(design, best, order[1:])]),
            *_objectives(design, outcomes), *tail]  # fmt: skip


def questions(outcomes: Sequence[Outcome]) -> str:
    """Which question each interval answers."""
    rates = [o.rate for o in outcomes if o.rate]
    text = (
        "Other strings: what other strings by the same speakers, recognised by the same trained "
        "systems, would give; strings are resampled within each speaker."
    )
    if any(math.isfinite(rate.trainings.low) for rate in rates):
        speakers = max(len(o.trained.folds) for o in outcomes)
        text += (
            " Other trainings: what other speakers would give, each with a training of its own; "
            "speakers with their trainings are resampled, and strings within them. "
            f"{spelled(speakers)} speakers are few to speak of speakers in general, "
            "so this interval is wide."
        )
    if any(math.isfinite(rate.seeds.low) for rate in rates):
        text += (
            " Other seeds: what other seeds and other strings would give with the same speakers; "
            "seeds are resampled, and the strings that they share."
        )
    return (
        f"{text} Differences are between trainings of the same speaker and seed on the same "
        "strings, so what these do to both alike cancels."
    )


def _against(design: Design, best: Outcome, others: Sequence[Outcome]) -> list[str]:
    found = [(other, difference_of(other.trained, best.trained)) for other in others]
    p_values = [difference.p_value if difference else math.nan for _, difference in found]
    open_, worse, unknown = [], [], []
    for (other, difference), adjusted in zip(found, stats.holm(p_values), strict=True):
        label = design.system_label(other.system)
        if difference is None or math.isnan(adjusted):
            unknown.append(f"{label} ({percent(_value(other))} %)")
            continue
        if adjusted <= ALPHA:
            worse.append(f"{label} ({percent(_value(other))} %)")
            continue
        words = f"{percent(_value(other))} %, {percent(difference.value)} points more"
        if math.isfinite(difference.interval.low):
            words += f", 95 % interval {percent_range(difference.interval)}"
        open_.append(f"{label} ({words})")
    parts = []
    if open_:
        parts.append(f"It cannot be told from {_some(open_, 'other systems')}.")
    if worse:
        verb = "makes" if len(worse) == 1 else "make"
        parts.append(f"{_some(worse, 'systems')} {verb} more errors.")
    if unknown:
        parts.append(f"Nothing is known of how far {_some(unknown, 'systems')} would vary.")
    if open_ or worse:
        parts.append(
            "These differences are to the best of all, adjusted for as many comparisons by Holm; "
            "the best of several is partly the luckiest."
        )
    return parts


def _objectives(design: Design, outcomes: Sequence[Outcome]) -> list[str]:
    """Every objective against the reference with the same encoder and optimizer."""
    compared = [o for o in outcomes if o.difference and o.difference.verdict]
    if not compared or design.reference is None:
        return []
    reference = design.objective_label(design.reference)
    told = {
        kind: [
            design.system_label(o.system)
            for o in compared
            if o.difference and o.difference.verdict == kind
        ]
        for kind in ("better", "worse", "open")
    }
    parts = [f"Against {reference} with the same encoder and optimizer,"]
    parts.append(
        f"{count(len(compared), 'comparison')} together:"
        if len(compared) > 1
        else "one comparison:"
    )
    said = [
        f"{_some(told[kind], 'systems')} {words}"
        for kind, words in (
            ("better", "make fewer errors" if len(told["better"]) > 1 else "makes fewer errors"),
            ("worse", "make more errors" if len(told["worse"]) > 1 else "makes more errors"),
            ("open", "cannot be told from it"),
        )
        if told[kind]
    ]
    return [" ".join([*parts, "; ".join(said) + "."])]


def _missing(design: Design, outcomes: Sequence[Outcome]) -> list[str]:
    said = []
    for outcome in outcomes:
        item, label = outcome.trained, design.system_label(outcome.system)
        if item.diverged:
            said.append(f"{label} diverged in {item.diverged} of {_runs(item)}.")
        if item.lost:
            said.append(f"The search of {label} diverged altogether for {listed(item.lost)}.")
    absent = [o for o in outcomes if o.trained.state == "not run"]
    begun = [o for o in outcomes if o.trained.state == "begun"]
    if absent or begun:
        said.append(
            f"Of {count(len(outcomes), 'system')}, {len(absent)} have not been run and "
            f"{len(begun)} are not finished; their places are blank."
        )
    sizes = [len(o.trained.finished) for o in outcomes if o.rate]
    if sizes and max(sizes) == 1:
        said.append("Each was trained once; how much another training would change is not known.")
    return [" ".join(said)] if said else []


def _runs(item: Trained) -> str:
    return count(len(item.finals), "final training")


def _value(outcome: Outcome) -> float:
    return outcome.rate.value if outcome.rate else math.nan


def _score(rate: Rate | None) -> str:
    assert rate
    text = f"{percent(rate.value)} %"
    parts = []
    if math.isfinite(rate.strings.low):
        parts.append(f"95 % interval {percent_range(rate.strings)} for other strings")
    if math.isfinite(rate.trainings.low):
        parts.append(f"{percent_range(rate.trainings)} for other trainings")
    if math.isfinite(rate.seeds.low):
        parts.append(f"{percent_range(rate.seeds)} for other seeds")
    return f"{text} ({', '.join(parts)})" if parts else text


def _some(items: Sequence[str], noun: str) -> str:
    return listed(items) if len(items) <= _NAMED else f"{len(items)} {noun}"
