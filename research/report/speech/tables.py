"""The tables of the page."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from research import stats
from research.report.common import (
    BLANK,
    count,
    fixed,
    name,
    number,
    p_words,
    percent,
    percent_range,
)
from research.report.page import Html, element, join, table
from research.report.rows import entrant_label, quotient
from research.report.speech.costs import Cost
from research.report.speech.design import Design, System
from research.report.speech.details import DECODERS, DIAGNOSTICS, decoders_of
from research.report.speech.exports import diagnostic_mean
from research.report.speech.outcomes import Outcome, seed_means
from research.report.speech.trained import Search, by_string
from research.stats import Interval, proportion_interval

_DECODER_WORDS = {"greedy": "Greedy", "beam": "Beam", "beam_ngram": "Beam + n-gram"}


def main_table(design: Design, outcomes: Sequence[Outcome]) -> Html:
    """Error rates of all systems, beside the reference objective."""
    reference = design.objective_label(design.reference or "the reference")
    rates = [o.rate for o in outcomes if o.rate]
    seeds = any(math.isfinite(rate.seeds.low) for rate in rates)
    trainings = any(math.isfinite(rate.trainings.low) for rate in rates) or not seeds
    headers = [
        "Objective", f"{design.metric.capitalize()}, %", "Other strings",
        *(["Other trainings"] if trainings else []), *(["Other seeds"] if seeds else []),
        "Sub / del / ins, %", "Trainings", f"Difference to {reference}, points", "p, Holm",
    ]  # fmt: skip

    def line(outcome: Outcome) -> list[str]:
        rate, difference = outcome.rate, outcome.difference
        shares = [percent(share) for share in outcome.shares.values()]
        intervals = [rate.strings] if rate else [stats.UNKNOWN]
        for wanted, kind in ((trainings, "trainings"), (seeds, "seeds")):
            intervals += [getattr(rate, kind) if rate else stats.UNKNOWN] if wanted else []
        value: str = element("b", percent(rate.value)) if rate else BLANK
        p_value: str = p_words(difference.adjusted) if difference else BLANK
        if difference and difference.verdict in ("better", "worse"):
            p_value = element("b", p_value)
        return [
            design.objective_label(outcome.system.objective), value,
            *map(percent_range, intervals), " / ".join(shares) if rate else BLANK,
            _runs(outcome), _difference(outcome), p_value,
        ]  # fmt: skip

    note = (
        f"{design.metric.capitalize()}: substituted, deleted and inserted labels over those said, "
        "by the greedy decoder, averaged over held-out speakers with the same weight each. "
        "Intervals of 95 %: see the questions above. Trainings: final ones that are recorded, of "
        "those planned; with one that diverged a system has no average. Difference: over trainings "
        "of the same speaker and seed, with its interval for other trainings; below zero is "
        "better. p, Holm: of that difference, adjusted for all comparisons of this column; bold "
        "where at most 0.05; Wilcoxon's signed-rank test over the pairs where a training "
        "diverged. Blanks were not run, or not enough."
    )
    return table(headers, _grouped(design, outcomes, line), note=note)


def decoder_table(design: Design, outcomes: Sequence[Outcome]) -> Html:
    """Error rates by decoder, of labels and words."""
    columns = [
        (decoder, words)
        for words in (False, True)
        for decoder in DECODERS
        if any(
            decoder in decoders_of(r, words) for o in outcomes for r in o.trained.finished.values()
        )
    ]
    rated = [o for o in outcomes if o.rate]
    if len(columns) < 2 or not rated:
        return Html("")
    headers = ["Objective"]
    headers += [
        f"{_DECODER_WORDS[decoder]}, {'word errors' if words else 'label errors'}, %"
        for decoder, words in columns
    ]

    def line(outcome: Outcome) -> list[str]:
        values = (percent(outcome.decoded(decoder, words)) for decoder, words in columns)
        return [design.objective_label(outcome.system.objective), *values]

    note = (
        "The same trained systems and test strings by each decoder, averaged over speakers. "
        "Beam: the likeliest labels over all alignments; + n-gram: with a model of the training "
        "texts."
    )
    return table(headers, _grouped(design, rated, line), note=note)


def speaker_table(design: Design, outcomes: Sequence[Outcome]) -> Html:
    """Error rate on each held-out speaker."""
    if len(design.folds) < 2 or not any(o.trained.finished for o in outcomes):
        return Html("")

    def line(outcome: Outcome) -> list[str]:
        cells = [design.objective_label(outcome.system.objective)]
        for fold in design.folds:
            results = list(outcome.trained.on(fold).values())
            lost = sum(
                own == fold and row["status"] == "diverged"
                for (own, _), row in outcome.trained.finals.items()
            )
            cell: str = BLANK
            if results:
                group = by_string(results)
                interval = stats.error_rate_interval([group])
                small = element("span", f" {percent_range(interval)}", class_="mute")
                cell = join([percent(stats.error_rate([group])), small])
            if lost or fold in outcome.trained.lost:
                text = f"{count(lost, 'training')} diverged" if lost else "search diverged"
                warn = element("span", text, class_="warn")
                cell = join([cell, " ", warn]) if results else warn
            cells.append(cell)
        return cells

    note = (
        f"{design.metric.capitalize()} in per cent, with the 95 % interval for other strings by "
        "the speaker; the mean where there are several seeds. Speakers also differ in who is left "
        "to train on."
    )
    return table(["Objective", *design.folds], _grouped(design, outcomes, line), note=note)


def seed_table(design: Design, outcomes: Sequence[Outcome]) -> Html:
    """Error rate by seed, where seeds are not one with speakers."""
    several = [o for o in outcomes if any(len(o.trained.on(f)) > 1 for f in o.trained.folds)]
    if not several:
        return Html("")
    seeds = sorted({seed for o in several for seed in seed_means(o.trained)})
    headers = ["Objective", *(f"Seed {seed}" for seed in seeds), "Deviation over seeds, points"]

    def line(outcome: Outcome) -> list[str]:
        found = seed_means(outcome.trained)
        full = [value for n, value in found.values() if n == len(outcome.trained.folds)]
        deviation = stats.mean_and_deviation(full)[1]
        if len(full) < 2:  # other seeds on other speakers: the spread within each speaker
            own = [
                [
                    v
                    for (f, _), v in outcome.trained.scores().items()
                    if f == fold and np.isfinite(v)
                ]
                for fold in outcome.trained.folds
            ]
            spreads = [np.var(values, ddof=1) for values in own if len(values) > 1]
            deviation = math.sqrt(np.mean(spreads)) if spreads else math.nan
        return [
            design.objective_label(outcome.system.objective),
            *(percent(found[s][1]) if s in found else BLANK for s in seeds),
            percent(deviation, 2),
        ]  # fmt: skip

    note = (
        f"{design.metric.capitalize()} in per cent by seed, averaged over the speakers that the "
        "seed was trained for. Deviation: sample standard deviation over seeds; where seeds went "
        "with different speakers, within speakers."
    )
    return table(headers, _grouped(design, several, line), note=note)


def diagnostic_table(
    design: Design, outcomes: Sequence[Outcome], costs: Mapping[System, Cost]
) -> Html:
    """Posteriors, alignments, confidence; and what recognition costs."""
    measured = [o for o in outcomes if o.trained.finished]
    keys = [k for k in DIAGNOSTICS if any(math.isfinite(diagnostic_mean(o, k)) for o in measured)]
    if not keys:
        return Html("")
    headers = ["Objective", *(", ".join(filter(None, DIAGNOSTICS[key])) for key in keys),
               "Seconds per hour of audio"]  # fmt: skip

    def line(outcome: Outcome) -> list[str]:
        cells = [design.objective_label(outcome.system.objective)]
        for key in keys:
            value = diagnostic_mean(outcome, key)
            cells.append(percent(value) if DIAGNOSTICS[key][1] == "%" else fixed(value, ".3g"))
        cost = costs.get(outcome.system)
        return [*cells, fixed(cost.hour if cost else math.nan, ".3g")]

    note = (
        "Means over speakers of the finished trainings. Seconds per hour of audio: the network and "
        "the greedy decoder without the front end, on this machine; the median over trainings."
    )
    return table(headers, _grouped(design, measured, line), note=note)


def search_table(design: Design, searches: Mapping[tuple[System, str], Search]) -> Html:
    """What each search chose."""
    groups: dict[str, list[list[str]]] = {}
    for (system, fold), search in searches.items():
        best = search.winner
        parts = []
        for key, value in (best["settings"]["hyperparameters"] if best else {}).items():
            text = join([element("span", key.replace("_", " "), class_="mute"), " ", number(value)])
            if key in search.edges(design):
                text = join([text, element("span", " (edge)", class_="warn")])
            parts.append(element("span", text, class_="keep"))
        made, lost = len(search.trials), search.diverged
        low, high = proportion_interval(lost, made)
        diverged: str = BLANK
        if made:
            rate = element("span", f" ({100 * low:.0f} to {100 * high:.0f} %)", class_="mute")
            diverged = join([f"{lost} of {made}", rate])
        score = best["result"]["validation_score"][-1] if best else math.nan
        of = f" of {search.planned}" if search.planned else ""
        groups.setdefault(design.system_label(system), []).append(
            [fold, search.validator or BLANK, f"{made}{of}" if made else BLANK, diverged,
             percent(score), join(parts, ", ") if parts else BLANK]
        )  # fmt: skip
    if not groups:
        return Html("")
    headers = ["Unheard", "Validated on", "Trials", "Diverged", "Best validation error, %",
               "Chosen hyperparameters"]  # fmt: skip
    note = (
        "The trial of the lowest final validation error. The test speaker is not heard by a search "
        "at all, the validating one is not trained on. (edge): in the outer 5 % of the values "
        "searched, so a better one may lie beyond. Diverged: with the exact 95 % interval of the "
        "rate in the searched space. The best of several scores flatters."
    )
    return table(headers, list(groups.items()), text_columns=(0, 1, 5), note=note)


def compute_table(design: Design, costs: Mapping[System, Cost]) -> Html:
    """What each system spends on a final training."""
    groups = []
    for system in design.systems():
        cost, baseline = costs.get(system), design.baseline(system)
        other = costs.get(baseline) if baseline else cost
        steps, views = (of.get(system.objective) for of in (design.steps_of, design.views))
        passes = steps * views if steps and views else None
        per_step = cost.seconds_per_step if cost else math.nan
        unit = other.seconds_per_step if other else math.nan
        own = [design.objective_label(system.objective), *(f"{n:,}" if n else BLANK for n in
               (steps, views, passes)), fixed(1000 * per_step, ".3g"),
               fixed(per_step * (steps or math.nan), ".3g"),
               fixed(quotient(per_step, unit), ".2f")]  # fmt: skip
        heading = design.group_label(system)
        if not groups or groups[-1][0] != heading:
            groups.append((heading, []))
        groups[-1][1].append(own)
    headers = ["Objective", "Steps", "Views", "Passes of the encoder", "Milliseconds per step",
               "Seconds per training", "A step over the reference's"]  # fmt: skip
    matched = {
        "compute": "Compute-matched: an objective that passes each utterance through the encoder "
        "twice in a step has half as many steps.",
        "steps": "All objectives have the same number of steps, so one with two views spends "
        "twice the compute.",
    }.get(design.match or "", "The configuration does not say how compute was matched.")
    note = (
        f"{matched} Passes of the encoder: steps times views, in batches. Seconds: wall clock of "
        "one training without compilation, evaluation included, as it was on this machine; they "
        "are in costs.csv only."
    )
    return table(headers, groups, note=note) if groups else Html("")


def objective_table(design: Design) -> Html:
    """The objectives with their papers."""
    rows = [[design.objective_label(o), o, design.sources.get(o, BLANK)] for o in design.objectives]
    return table(["Objective", "Name", "Source"], [("", rows)], text_columns=(0, 1, 2))


def _grouped(
    design: Design, outcomes: Iterable[Outcome], line
) -> list[tuple[str, list[list[str]]]]:
    groups: dict[tuple[str, str], list[list[str]]] = {}
    sizes: dict[tuple[str, str], set[int]] = {}
    for outcome in outcomes:
        key = outcome.system.encoder, outcome.system.entrant
        groups.setdefault(key, []).append(line(outcome))
        finished = outcome.trained.finished.values()
        sizes.setdefault(key, set()).update(r["details"]["parameters"] for r in finished)
    made = []
    for (encoder, entrant), rows in groups.items():
        heading = name(encoder)
        if len(design.entrants) > 1:
            heading += f", {entrant_label(entrant)}"
        own = sorted(sizes[encoder, entrant])
        if own:
            heading += f", {own[0]:,}" + (f" to {own[-1]:,}" if len(own) > 1 else "")
            heading += " parameters"
        made.append((heading, rows))
    return made


def _runs(outcome: Outcome) -> str:
    item = outcome.trained
    if not item.finals:
        return element("span", "search diverged", class_="warn") if item.lost else BLANK
    text: str = str(len(item.finals))
    if item.planned and len(item.finals) != item.planned:
        text += f" of {item.planned}"
    if item.diverged:
        text = join([text, element("span", f" ({item.diverged} diverged)", class_="warn")])
    return text


def _difference(outcome: Outcome) -> str:
    made = outcome.difference
    if made is None or not math.isfinite(made.value):
        return BLANK
    value = ("+" if made.value > 0 else "") + percent(made.value)
    low, high = made.interval
    if not math.isfinite(low):
        return value
    shown = Interval(low, high)
    small = element("span", f" [{percent_range(shown).replace(' to ', ', ')}]", class_="mute")
    pairs = f" n = {made.pairs}" if made.pairs != outcome.trained.planned else ""
    return join([value, small, pairs])
