"""What a comparison set out to run, from the configuration and, where that is silent, the rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from research.report.common import strings
from research.report.rows import (
    check_rows,
    entrant_of,
    mapping,
    plain,
    texts,
    whole_number,
    whole_numbers,
)
from research.runlog import Records

Unit = Literal["seed", "study"]  # what is repeated, and compared


@dataclass(frozen=True)
class Design:
    """The plan of a comparison: which cells there are, and what each is made of."""

    workloads: list[str]
    entrants: list[str]
    schedule: str | None
    horizons: dict[str, list[int]]  # by workload, ascending
    trials: int | None
    seeds: list[int] | None
    studies: int  # of each entrant; dealt the seeds in turn
    reference: str | None
    aa_studies: int  # further sets of so many studies of the reference
    held_out: dict[str, str]  # workload no search space was chosen on -> what it varies, or ""
    targets: dict[str, float]
    metrics: dict[str, str]
    descriptions: dict[str, str]
    search_spaces: Mapping[str, Any]
    papers: dict[str, str]

    @property
    def unit(self) -> Unit:
        """What is repeated: seeds of one search, or whole studies."""
        return "study" if self.studies > 1 else "seed"

    @property
    def units(self) -> str:
        """More than one of them."""
        return "studies" if self.studies > 1 else "seeds"

    def planned_studies(self, entrant: str) -> int:
        """Studies of an entrant, with the further ones of the reference."""
        return self.studies * (1 + (self.aa_studies if entrant == self.reference else 0))

    def seeds_of(self, study: int) -> list[int] | None:
        """Final seeds of a study: every one in so many, from its own place on."""
        return None if self.seeds is None else self.seeds[study % self.studies :: self.studies]

    def metric(self, workload: str) -> str:
        """What the score of a workload is."""
        return self.metrics.get(workload, "score")

    def longest(self, workload: str) -> int:
        """The longest horizon of a workload; 0 where it has none."""
        return max(self.horizons.get(workload, []), default=0)

    def others(self) -> list[str]:
        """The entrants that are compared with the reference."""
        return [entrant for entrant in self.entrants if entrant != self.reference]

    def optimizer(self, entrant: str) -> str:
        """The optimizer's name in the registry."""
        return entrant.partition("@")[0]


def read_design(records: Records) -> Design:
    """The design of a run.

    Raises:
        RunError: rows that are not what a sweep writes.
    """
    check_rows(records)
    config = records.config
    found = [row["settings"] for row in records.rows]
    schedule = config.get("schedule")
    schedule = schedule if isinstance(schedule, str) else None
    workloads = strings(config.get("workloads"), [])
    listed = [plain(entrant, schedule) for entrant in strings(config.get("optimizers"), [])]
    workloads = strings(workloads + [settings["workload"] for settings in found], [])
    entrants = strings(listed + [entrant_of(settings, schedule) for settings in found], [])
    reference = config.get("reference")
    return Design(
        workloads=workloads,
        entrants=entrants,
        schedule=schedule,
        horizons={workload: _horizons(config, found, workload) for workload in workloads},
        trials=whole_number(config.get("trials")),
        seeds=whole_numbers(config.get("seeds")),
        studies=max(1, whole_number(config.get("studies")) or 1),
        reference=plain(reference, schedule) if isinstance(reference, str) else None,
        aa_studies=whole_number(config.get("aa_studies")) or 0,
        held_out=_held_out(config.get("held_out")),
        targets={
            workload: float(target)
            for workload, target in mapping(config.get("targets")).items()
            if isinstance(target, int | float) and math.isfinite(target)
        },
        metrics=texts(config.get("metrics")),
        descriptions=texts(config.get("descriptions")),
        search_spaces=mapping(config.get("search_spaces")),
        papers=texts(config.get("papers")),
    )


def _horizons(config: Mapping[str, Any], found: list[dict], workload: str) -> list[int]:
    planned = mapping(config.get("horizons")).get(workload)
    steps = [s for s in planned if isinstance(s, int)] if isinstance(planned, list) else []
    steps += [settings["steps"] for settings in found if settings["workload"] == workload]
    return sorted(set(steps))


def _held_out(value: Any) -> dict[str, str]:
    # A list of earlier runs, which do not say what their variants vary.
    return texts(value) or dict.fromkeys(strings(value, []), "")
