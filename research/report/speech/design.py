"""What a CTC study set out to run, from the configuration and, where that is silent, the rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from research.errors import RunError
from research.report.common import name, strings
from research.report.rows import (
    check_rows,
    entrant_label,
    entrant_of,
    mapping,
    plain,
    row_name,
    texts,
    whole_number,
    whole_numbers,
)
from research.report.speech.details import check_details
from research.runlog import Records


class System(NamedTuple):
    """What is compared."""

    encoder: str
    objective: str
    entrant: str


class Place(NamedTuple):
    """Where a row belongs: a system and who is unheard; in a search, also who validates."""

    system: System
    fold: str
    validator: str | None


@dataclass(frozen=True)
class Design:
    """The plan of a study: its systems, and the trainings of each."""

    corpus: str
    source: str
    encoders: list[str]
    objectives: list[str]
    entrants: list[str]
    schedule: str | None
    folds: list[str]
    crossed: bool
    seeds: list[int]
    planned: bool  # whether the configuration says what the trainings of a system are
    trials: int | None
    search_steps: int | None
    tuning: str  # "shared" or "each"
    tuned_with: str  # the objective of the searches where they are shared
    match: str | None
    reference: str | None  # an objective
    batch_size: int | None
    steps_of: Mapping[str, int]
    views: Mapping[str, int]
    labels: Mapping[str, str]
    sources: Mapping[str, str]
    search_spaces: Mapping[str, Any]
    metric: str

    def systems(self) -> list[System]:
        """All that are planned."""
        return [
            System(encoder, objective, entrant)
            for encoder in self.encoders
            for entrant in self.entrants
            for objective in self.objectives
        ]

    def pairs(self) -> list[tuple[str, int]]:
        """Fold and seed of every planned training of a system; none where that is not known."""
        if not self.planned or not self.folds or not self.seeds:
            return []
        if self.crossed:
            return [(fold, seed) for fold in self.folds for seed in self.seeds]
        return [
            (self.folds[i % len(self.folds)], self.seeds[i % len(self.seeds)])
            for i in range(max(len(self.folds), len(self.seeds)))
        ]

    def searched_with(self, objective: str) -> str:
        """The objective whose search chooses the hyperparameters of one."""
        return self.tuned_with if self.tuning == "shared" else objective

    def searches(self) -> list[tuple[System, str]]:
        """System and fold of every planned search."""
        systems = (
            system._replace(objective=self.searched_with(system.objective))
            for system in self.systems()
        )
        folds = list(dict.fromkeys(fold for fold, _ in self.pairs()))
        return [(system, fold) for system in dict.fromkeys(systems) for fold in folds]

    def objective_label(self, objective: str) -> str:
        """An objective as people write it."""
        return self.labels.get(objective) or name(objective)

    def system_label(self, system: System) -> str:
        """A system as people write it, with its optimizer where there are several."""
        entrant = f" by {entrant_label(system.entrant)}" if len(self.entrants) > 1 else ""
        return f"{name(system.encoder)} with {self.objective_label(system.objective)}{entrant}"

    def group_label(self, system: System) -> str:
        """What the systems have in common that differ in the objective alone."""
        entrant = f", {entrant_label(system.entrant)}" if len(self.entrants) > 1 else ""
        return name(system.encoder) + entrant

    def baseline(self, system: System) -> System | None:
        """The system with the reference objective that another is compared with."""
        if self.reference is None or system.objective == self.reference:
            return None
        return system._replace(objective=self.reference)

    def place(self, row: Mapping[str, Any]) -> Place:
        """Where a row belongs."""
        settings = row["settings"]
        _, encoder, objective, fold = settings["workload"].split("/", 3)
        validator = None
        if settings["phase"] == "search" and "." in fold:
            fold, _, validator = fold.partition(".")
        system = System(encoder, objective, entrant_of(settings, self.schedule))
        return Place(system, fold, validator)


def read_design(records: Records) -> Design:
    """The design of a run.

    Raises:
        RunError: rows that are not what the study writes.
    """
    check_rows(records)
    for row in records.rows:
        where = row_name(records, row)
        if row["settings"]["workload"].count("/") < 3:
            raise RunError(
                f"{where} must have a workload corpus/encoder/objective/fold, got "
                f"{row['settings']['workload']!r}: the file is damaged"
            )
        if row["settings"]["phase"] == "final" and row["status"] == "finished":
            check_details(row["result"], where)
    config = records.config
    schedule = config.get("schedule")
    schedule = schedule if isinstance(schedule, str) else None
    seeds, folds = whole_numbers(config.get("seeds")), strings(config.get("folds"), [])
    reference = config.get("reference")
    design = Design(
        corpus=str(config.get("corpus") or records.data.get("name") or ""),
        source=str(config.get("source") or records.data.get("source") or ""),
        encoders=strings(config.get("encoders"), []),
        objectives=strings(config.get("objectives"), []),
        entrants=[plain(entrant, schedule) for entrant in strings(config.get("optimizers"), [])],
        schedule=schedule,
        folds=folds,
        crossed=config.get("crossed") is True,
        seeds=seeds or [],
        planned=bool(seeds and folds),
        trials=whole_number(config.get("trials")),
        search_steps=whole_number(config.get("search_steps")),
        tuning=str(config.get("tuning") or "shared"),
        tuned_with=str(config.get("tuned_with") or "ctc"),  # which earlier runs do not say
        match=config["match"] if isinstance(config.get("match"), str) else None,
        reference=reference if isinstance(reference, str) else None,
        batch_size=whole_number(config.get("batch_size")),
        steps_of=_counts(config.get("steps_of")),
        views=_counts(config.get("views")),
        labels=texts(config.get("labels")),
        sources=texts(config.get("sources")),
        search_spaces=mapping(config.get("search_spaces")),
        metric=str(config.get("metric") or "label error rate"),
    )
    listing = bool(design.objectives)
    for row in records.rows:  # what was run without being planned is shown behind the rest
        place = design.place(row)
        # The objective of shared searches need not be one that is compared.
        shared = listing and row["settings"]["phase"] == "search" and design.tuning == "shared"
        objectives = [] if shared else design.objectives
        for listed, found in (
            (design.encoders, place.system.encoder),
            (objectives, place.system.objective),
            (design.entrants, place.system.entrant),
            (design.folds, place.fold),
        ):
            if found not in listed:
                listed.append(found)
    return design


def _counts(value: Any) -> dict[str, int]:
    return {key: n for key, n in mapping(value).items() if whole_number(n) is not None and n > 0}
