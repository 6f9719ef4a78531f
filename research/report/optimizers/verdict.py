"""What the numbers say, in a few sentences, and nothing that they do not."""

import math
from collections.abc import Sequence

from research.report.common import count, listed, name, signed
from research.report.optimizers.design import Design
from research.report.optimizers.outcomes import ALPHA, Outcome, SelfComparison, false_positives
from research.report.optimizers.summaries import Block, Outcomes, Profile
from research.report.rows import entrant_label
from research.stats import Ranks

_NAMED = 8  # longer lists are counted, not spelled out


def workload_verdict(design: Design, outcomes: Outcomes, workload: str) -> str:
    """One workload, at its longest horizon."""
    where, steps = name(workload), design.longest(workload)
    made = [o for key, o in outcomes.items() if key[0] == workload and key[2] == steps]
    if all(o.studies.state == "not run" for o in made):
        return f"{where}: nothing has been run at {steps:,} steps."
    order = sorted((o for o in made if o.whole), key=lambda o: (o.mean, o.entrant))
    tail = _failures(made)
    if not order:
        return " ".join([f"{where}: no final run has finished, so nothing can be said.", *tail])
    best = order[0]
    repeats = len(best.scores)
    lead = (
        f"{where}, {steps:,} steps: {entrant_label(best.entrant)} has the lowest mean "
        f"{best.which} score, {signed(f'{best.mean:.4g}')}"
    )
    reference = next((o for o in made if o.entrant == design.reference), None)
    if len(order) == 1 and len(made) == 1:
        return " ".join([f"{lead}; there is nothing to compare it with.", *tail])
    if repeats < 2:
        one = f"{lead}, but of one {design.unit}, so no winner can be named."
        return " ".join([one, *tail])
    over = count(repeats, design.unit, design.units)
    if reference is None or not reference.scores.size:
        missing = f"{lead} over {over}; without final runs of the reference there are no tests."
        return " ".join([missing, *tail])
    parts = [f"{lead} over {over}."]
    against = entrant_label(design.reference or "")
    told = {kind: [o for o in made if o.verdict == kind] for kind in ("better", "worse", "open")}
    if any(told.values()):
        said = [
            f"{_who(told[kind])} {'is' if len(told[kind]) == 1 else 'are'} {kind}"
            for kind in ("better", "worse")
            if told[kind]
        ]
        if told["open"]:
            said.append(f"{_who(told['open'])} cannot be told apart from it")
        parts.append(f"Beside {against}, after Holm's correction: {'; '.join(said)}.")
    return " ".join([*parts, *tail])


def overall(
    design: Design, outcomes: Outcomes, profile: Profile | None, ranks: Ranks | None,
    compared: Block, same: Sequence[SelfComparison],
) -> list[str]:  # fmt: skip
    """All workloads together: ranks, profile, and what the A/A test says of the p values."""
    said = []
    if ranks is not None:
        i, workloads = int(ranks.mean.argmin()), count(len(compared.workloads), "workload")
        said.append(
            f"Over {workloads}, {entrant_label(compared.entrants[i])} has the best mean rank of "
            f"final scores, {ranks.mean[i]:.1f} among {len(compared.entrants)} entrants; it stays "
            f"first in {100 * ranks.first[i]:.0f} % of resamplings of {design.units} and "
            "workloads."
        )
        left = [e for e in design.entrants if e not in compared.entrants]
        if left:
            names = [entrant_label(entrant) for entrant in left]
            who = listed(names) if len(names) <= _NAMED else f"{len(names)} entrants"
            said[-1] += f" Left out, for want of an outcome on each of these: {who}."
    if profile is not None and len(profile.entrants) > 1 and profile.scores.max() > 0:
        i = int(profile.scores.argmax())
        workloads = count(len(profile.workloads), "workload")
        said.append(
            f"By steps to the target, {entrant_label(profile.entrants[i])} has the highest "
            f"profile score, {profile.scores[i]:.3f} over {workloads}."
        )
    tests = [o for o in outcomes.values() if o.comparison and math.isfinite(o.adjusted)]
    if tests:
        below = sum(o.adjusted <= ALPHA for o in tests)
        said.append(
            f"Of {count(len(tests), 'comparison')} with {entrant_label(design.reference or '')}, "
            f"{below} remain at 5 % after Holm's correction."
        )
    rejected, known, (low, high) = false_positives(same)
    if known:
        said.append(
            f"{entrant_label(design.reference or '')} compared with itself, searched anew, differs "
            f"at 5 % in {rejected} of {count(known, 'test')} (95 % interval of the rate "
            f"{100 * low:.0f} to {100 * high:.0f} %)"
            + (_TOO_OFTEN[design.unit] if low > ALPHA else ".")
        )
    return said


_TOO_OFTEN = {
    "seed": ": the tests know the chance of the seed, not that of the search, and differences of "
    "that size are no property of an optimizer.",
    "study": ": more than the tests allow for, so their p values are too low here.",
}


def _failures(made: Sequence[Outcome]) -> list[str]:
    hopeless = [o for o in made if o.studies.state == "failed"]
    part = [o for o in made if o not in hopeless and _failed_searches(o)]
    lost = [o for o in made if o.studies.final_diverged]
    said = []
    if hopeless:
        said.append(f"Every search trial of {_who(hopeless)} diverged.")
    if part:
        counts = [(o, _failed_searches(o), len(o.studies.cells)) for o in part]
        said.append(f"Searches of which every trial diverged: {_counts(counts)}.")
    if lost:
        counts = [(o, o.studies.final_diverged, len(o.studies.finals)) for o in lost]
        said.append(f"Final runs that diverged: {_counts(counts)}.")
    blank = [o for o in made if o.studies.state in ("not run", "searching", "finals")]
    if blank:
        said.append(f"Not, or not all, run yet: {_who(blank)}.")
    return said


def _failed_searches(outcome: Outcome) -> int:
    return sum(cell.state == "failed" for cell in outcome.studies.cells)


def _counts(found: Sequence[tuple[Outcome, int, int]]) -> str:
    named = ", ".join(f"{entrant_label(o.entrant)} {n} of {of}" for o, n, of in found[:_NAMED])
    return named + (f" and {len(found) - _NAMED} others" if len(found) > _NAMED else "")


def _who(outcomes: Sequence[Outcome]) -> str:
    names = [entrant_label(o.entrant) for o in outcomes]
    return f"{len(names)} others" if len(names) > _NAMED else listed(names)
