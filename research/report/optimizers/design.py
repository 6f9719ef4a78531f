"""What a comparison set out to run, from the configuration and, where that is silent, the rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from research.errors import RunError
from research.report.common import check_records, name, need, strings
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
    check_records(records)
    for row in records.rows:
        if not isinstance(row, dict):
            raise RunError(f"every file in {records.path / 'rows'} must hold an object")
        check_row(row, f"row {row.get('key')!r} of {records.path}")
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
        trials=_count(config.get("trials")),
        seeds=_seeds(config.get("seeds")),
        studies=max(1, _count(config.get("studies")) or 1),
        reference=plain(reference, schedule) if isinstance(reference, str) else None,
        aa_studies=_count(config.get("aa_studies")) or 0,
        held_out=_held_out(config.get("held_out")),
        targets={
            workload: float(target)
            for workload, target in _mapping(config.get("targets")).items()
            if isinstance(target, int | float) and math.isfinite(target)
        },
        metrics=_texts(config.get("metrics")),
        descriptions=_texts(config.get("descriptions")),
        search_spaces=_mapping(config.get("search_spaces")),
        papers=_texts(config.get("papers")),
    )


def plain(entrant: str, schedule: str | None) -> str:
    """An entrant without the schedule that all have.

    Example:
        >>> plain("adam@cosine", "cosine"), plain("adam@constant", "cosine")
        ('adam', 'adam@constant')
    """
    optimizer, _, own = entrant.partition("@")
    return optimizer if own in ("", schedule) else entrant


def entrant_of(settings: Mapping[str, Any], schedule: str | None) -> str:
    """The entrant whose training this is."""
    return plain(f"{settings['optimizer']}@{settings['schedule']}", schedule)


def entrant_label(entrant: str) -> str:
    """An entrant as people write it.

    Example:
        >>> entrant_label("adamw"), entrant_label("schedule_free_sgd@constant")
        ('AdamW', 'Schedule-free SGD (constant)')
    """
    optimizer, _, schedule = entrant.partition("@")
    return name(optimizer) + (f" ({name(schedule)})" if schedule else "")


def check_row(row: dict[str, Any], where: str) -> None:
    """A RunError where a row has not what the report reads."""
    need(row, "key", str, where)
    status = need(row, "status", str, where)
    if status not in ("finished", "diverged"):
        need({}, "status", str, f"{where} ('finished' or 'diverged')")
    settings, result = need(row, "settings", dict, where), need(row, "result", dict, where)
    for key in ("workload", "optimizer", "schedule", "phase"):
        need(settings, key, str, where)
    for key in ("steps", "study", "trial", "seed"):
        need(settings, key, int, where)
    for key in need(settings, "hyperparameters", dict, where):
        need(settings["hyperparameters"], key, float, where)
    steps = need(result, "steps", list, where)
    for step in steps:
        need({"step": step}, "step", int, where)
    for key in ("validation_loss", "validation_score"):
        values = need(result, key, list, where)
        if len(values) != len(steps):
            need({}, key, list, f"{where}, of the length of 'steps' ({len(steps)}),")
        for value in values:
            if value is not None:
                need({key: value}, key, float, where)
    if status == "finished":
        last = result["validation_score"][-1] if steps else None
        need({"validation_score": last}, "validation_score", float, f"{where}, finished,")
    if result.get("test_score") is not None:
        need(result, "test_score", float, where)


def _horizons(config: Mapping[str, Any], found: list[dict], workload: str) -> list[int]:
    planned = _mapping(config.get("horizons")).get(workload)
    steps = [s for s in planned if isinstance(s, int)] if isinstance(planned, list) else []
    steps += [settings["steps"] for settings in found if settings["workload"] == workload]
    return sorted(set(steps))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seeds(value: Any) -> list[int] | None:
    return (
        [int(seed) for seed in value if isinstance(seed, int)] if isinstance(value, list) else None
    )


def _held_out(value: Any) -> dict[str, str]:
    # A list of earlier runs, which do not say what their variants vary.
    return _texts(value) or dict.fromkeys(strings(value, []), "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> dict[str, str]:
    return {key: str(text) for key, text in _mapping(value).items()}
