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
    if all(o.cell.state == "not run" for o in made):
        return f"{where}: nothing has been run at {steps:,} steps."
    order = sorted((o for o in made if o.whole), key=lambda o: (o.mean, o.cell.entrant))
    tail = _failures(made)
    if not order:
        return " ".join([f"{where}: no final run has finished, so nothing can be said.", *tail])
    best = order[0]
    seeds = len(best.scores)
    lead = (
        f"{where}, {steps:,} steps: {entrant_label(best.cell.entrant)} has the lowest mean "
        f"{best.which} score, {signed(f'{best.mean:.4g}')}"
    )
    reference = next((o for o in made if o.cell.entrant == design.reference), None)
    if len(order) == 1 and len(made) == 1:
        return " ".join([f"{lead}; there is nothing to compare it with.", *tail])
    if seeds < 2:
        return " ".join([f"{lead}, but of one seed, so no winner can be named.", *tail])
    if reference is None or not reference.cell.finals:
        missing = f"{lead} over {count(seeds, 'seed')}; without final runs of the reference "
        return " ".join([f"{missing}there are no tests.", *tail])
    parts = [f"{lead} over {count(seeds, 'seed')}."]
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
            f"first in {100 * ranks.first[i]:.0f} % of resamplings of seeds and workloads."
        )
        left = [e for e in design.entrants if e not in compared.entrants]
        if left:
            names = [entrant_label(entrant) for entrant in left]
            who = listed(names) if len(names) <= _NAMED else f"{len(names)} entrants"
            said[-1] += f" Left out, for want of an outcome on each of these: {who}."
    if profile is not None and len(profile.block.entrants) > 1 and profile.scores.max() > 0:
        i = int(profile.scores.argmax())
        workloads = count(len(profile.block.workloads), "workload")
        said.append(
            f"By steps to the target, {entrant_label(profile.block.entrants[i])} has the highest "
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
            + (
                ": the tests know the chance of the seed, not that of the search, and differences "
                "of that size are no property of an optimizer."
                if low > ALPHA
                else "."
            )
        )
    return said


def _failures(made: Sequence[Outcome]) -> list[str]:
    hopeless = [o for o in made if o.cell.state == "failed"]
    lost = [o for o in made if o.cell.final_diverged]
    said = []
    if hopeless:
        said.append(f"Every search trial of {_who(hopeless)} diverged.")
    if lost:
        runs = ", ".join(
            f"{entrant_label(o.cell.entrant)} {o.cell.final_diverged} of {len(o.cell.finals)}"
            for o in lost[:_NAMED]
        )
        more = f" and {len(lost) - _NAMED} others" if len(lost) > _NAMED else ""
        said.append(f"Final runs that diverged: {runs}{more}.")
    blank = [o for o in made if o.cell.state in ("not run", "searching", "finals")]
    if blank:
        said.append(f"Not, or not all, run yet: {_who(blank)}.")
    return said


def _who(outcomes: Sequence[Outcome]) -> str:
    names = [entrant_label(o.cell.entrant) for o in outcomes]
    return f"{len(names)} others" if len(names) > _NAMED else listed(names)
