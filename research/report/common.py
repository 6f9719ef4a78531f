"""What both reports need: checks of the records, plain words for numbers and names, provenance."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from research.errors import RunError
from research.report.page import Html, facts, join, paragraph, section
from research.runlog import Records
from research.stats import Interval

BLANK = "–"

_NAMES = {
    "acprop": "ACProp", "adabelief": "AdaBelief", "adadelta": "Adadelta",
    "adafactor": "Adafactor", "adagrad": "AdaGrad", "adam": "Adam", "adamax": "AdaMax",
    "adamw": "AdamW", "adan": "Adan", "ademamix": "AdEMAMix", "adopt": "ADOPT",
    "amsgrad": "AMSGrad", "cautious_adamw": "Cautious AdamW", "cautious_lion": "Cautious Lion",
    "dadapt_adamw": "D-Adapt AdamW", "dog": "DoG", "dowg": "DoWG", "fromage": "Fromage",
    "kron": "PSGD Kron", "lamb": "LAMB", "lars": "LARS", "lion": "Lion", "madgrad": "MADGRAD",
    "mars": "MARS", "momentum": "Momentum", "muon": "Muon", "nadam": "NAdam", "nadamw": "NAdamW",
    "nesterov": "Nesterov", "normuon": "NorMuon", "novograd": "NovoGrad",
    "one_sided_shampoo": "One-sided Shampoo", "prodigy": "Prodigy", "radam": "RAdam",
    "rmsprop": "RMSprop", "rprop": "Rprop", "schedule_free_adamw": "Schedule-free AdamW",
    "schedule_free_sgd": "Schedule-free SGD", "sgd": "SGD", "sign_sgd": "SignSGD",
    "signum": "Signum", "simplified_ademamix": "Simplified AdEMAMix", "sm3": "SM3",
    "soap": "SOAP", "yogi": "Yogi",
    "wsd": "WSD", "warmup_cosine": "warm-up and cosine",
    "warmup_linear": "warm-up and linear",
    "bilstm": "Bidirectional LSTM", "conv_attention": "Convolution + attention",
    "conformer": "Conformer", "convolved_keys": "Convolved-key Transformer",
    "deep_speech2": "Deep Speech 2", "separable_conv": "Separable convolutions",
}  # fmt: skip
# As people write them inside the names of workloads.
_WORDS = {
    "cnn": "CNN", "ctc": "CTC", "gru": "GRU", "lenet": "LeNet", "lm": "LM", "mlp": "MLP",
    "vit": "ViT",
}  # fmt: skip


def name(identifier: str) -> str:
    """A name as people write it; one that is not known with spaces, and acronyms as they are.

    Example:
        >>> name("adamw"), name("digits_mlp"), name("my_optimizer")
        ('AdamW', 'digits MLP', 'my optimizer')
    """
    words = (_WORDS.get(word, word) for word in identifier.split("_"))
    return _NAMES.get(identifier, " ".join(words))


def names(identifiers: Iterable[str]) -> dict[str, str]:
    """`name` of each."""
    return {identifier: name(identifier) for identifier in identifiers}


def listed(items: Sequence[str]) -> str:
    """Items as a phrase.

    Example:
        >>> listed(["a"]), listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def spelled(n: int) -> str:
    """A small number as a word, to begin a title.

    Example:
        >>> spelled(5), spelled(31)
        ('Five', '31')
    """
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    return words[n] if n < len(words) else str(n)


def count(n: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun.

    Example:
        >>> count(1, "seed"), count(12000, "step")
        ('1 seed', '12,000 steps')
    """
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in per cent without the sign; a dash where there is none.

    Example:
        >>> percent(0.9724), percent(None)
        ('97.2', '–')
    """
    return (
        BLANK if value is None or not math.isfinite(value) else signed(f"{100 * value:.{digits}f}")
    )


def signed(text: str) -> str:
    """A written number with a minus sign where it has a hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def percent_range(interval: Interval, digits: int = 1) -> str:
    """An interval of fractions in per cent.

    Example:
        >>> percent_range(Interval(0.065, 0.0921))
        '6.5 to 9.2'
    """
    if not math.isfinite(interval.low):
        return BLANK
    return f"{percent(interval.low, digits)} to {percent(interval.high, digits)}"


def p_words(value: float) -> str:
    """A p value; a dash where there is none.

    Example:
        >>> p_words(0.0123), p_words(1e-6), p_words(float("nan"))
        ('0.012', '< 0.001', '–')
    """
    if math.isnan(value):
        return BLANK
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def fixed(value: float, form: str) -> str:
    """A number in a format; a dash where there is none.

    Example:
        >>> fixed(-1.234, ".1f"), fixed(float("inf"), ".1f")
        ('−1.2', '–')
    """
    return signed(format(value, form)) if math.isfinite(value) else BLANK


def number(value: Any) -> str:
    """A setting, to three significant digits where it is not whole.

    Example:
        >>> number(0.00312345), number(128), number("nesterov"), number(3e-05)
        ('0.00312', '128', 'nesterov', '3e-05')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def need(mapping: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """`mapping[key]`, or a RunError where it is absent, of another type or not finite."""
    value: Any = mapping.get(key)
    good = isinstance(value, int | float if kind is float else kind)
    if not good or (isinstance(value, bool) and kind is not bool):
        raise RunError(
            f"{where} must have {key!r} ({kind.__name__}), got {value!r}: the file is damaged or "
            "was written by another version; move it away and run the experiment again"
        )
    if kind is float and not math.isfinite(value):
        raise RunError(f"{where} must have a finite {key!r}, got {value!r}: the file is damaged")
    return value


def need_counts(value: Any, where: str, columns: int | None = None) -> Int[np.ndarray, "R C"]:
    """A matrix of counts, with that many columns, or square where `columns` is None."""
    try:
        counts = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        counts = np.zeros(0)
    right = counts.ndim == 2 and counts.shape[-1] == (columns or len(counts))
    # Above 2^53 a float skips whole numbers; a NaN fails both comparisons.
    if not right or not ((counts >= 0) & (counts <= 2**53)).all() or (counts % 1).any():
        wanted = f"(rows, {columns})" if columns else "square"
        raise RunError(f"{where} must be a {wanted} table of counts: the file is damaged")
    return counts.astype(np.int64)


def check_records(records: Records) -> None:
    """The parts of the records are what every report takes them for; RunError where not."""
    parts = vars(records)
    for key, kind in (("config", dict), ("data", dict), ("environment", dict)):
        need(parts, key, kind, str(records.path))
    for line in records.metrics:
        where = f"every line of metrics.jsonl of {records.path}"
        if not 0 <= need(line, "step", int, where) < 2**53:
            raise RunError(f"{where} must have a step from 0, got {line['step']}")
    for trial in records.trials:
        where = f"trial {trial.get('trial')!r} of {records.path}"
        need(trial, "trial", str, where)
        if need(trial, "status", str, where) not in ("finished", "diverged"):
            raise RunError(
                f"{where} must be 'finished' or 'diverged', got status {trial['status']!r}"
            )
        need(trial, "settings", dict, where)
        need(trial, "result", dict, where)


def strings(value: Any, default: Iterable[str]) -> list[str]:
    """A list of names from a configuration, or the default; without repetitions."""
    listed_names = value if isinstance(value, list | tuple) else default
    return list(dict.fromkeys(str(item) for item in listed_names))


def eyebrow(records: Records) -> Html:
    """The line above the title: what this page is."""
    text = f"Trellis · {records.experiment} · recipe {records.recipe}"
    return paragraph(text, class_="eyebrow")


def banner(recorded: int, planned: int, noun: str = "trial") -> Html:
    """A line that says that the run is not complete; nothing where it is."""
    if recorded >= planned:
        return Html("")
    return paragraph(
        f"Run in progress: {recorded} of {count(planned, noun)} are recorded. Everything below "
        "covers these only, and blanks are what has not been run.",
        class_="banner",
    )


def device_words(records: Records) -> str:
    """Commit and device in plain words, from the last session."""
    sessions = _sessions(records)
    if not sessions:
        return ""
    last = sessions[-1]
    commit, device, cpus = last.get("commit"), last.get("device"), last.get("cpus")
    if device and "cpu" in str(device).lower() and isinstance(cpus, int):
        device = f"a CPU with {count(cpus, 'core')}"
    versions = last.get("versions")
    jax = versions.get("jax") if isinstance(versions, dict) else None
    words = [f"on {device}"] if device else []
    words += [f"with JAX {jax}"] if jax else []
    # Outside a checkout the record is a phrase and not a commit.
    words += [f"at commit {commit}"] if commit and " " not in str(commit) else []
    return f"This was run {', '.join(words)}." if words else ""


def provenance(records: Records) -> Html:
    """How it was run: everything needed to run it again."""
    sessions = _sessions(records)
    commits = list(dict.fromkeys(str(s.get("commit")) for s in sessions if s.get("commit")))
    last = sessions[-1] if sessions else {}
    versions = last.get("versions")
    several = (
        f"The run was continued {count(len(sessions) - 1, 'time')}"
        + (f", under {len(commits)} different commits." if len(commits) > 1 else ".")
        if len(sessions) > 1
        else ""
    )
    config = ", ".join(f"{key} {_plain(value)}" for key, value in sorted(records.config.items()))
    return section(
        "How it was run",
        facts(
            [
                ("Command", str(last.get("command") or "")),
                ("Run directory", records.path.name),
                ("Commit", ", ".join(commits)),
                ("Sessions", several),
                ("Started", str(sessions[0].get("started") or "") if sessions else ""),
                ("Device", str(last.get("device") or "")),
                ("Platform", str(last.get("platform") or "")),
                ("CPUs", str(last.get("cpus") or "")),
                ("Data", str(records.data.get("source") or "")),
                ("Data sha256", str(records.data.get("sha256") or "")),
                ("Configuration", config),
                ("Python", str(last.get("python") or "")),
                (
                    "Versions",
                    ", ".join(f"{key} {value}" for key, value in sorted(versions.items()))
                    if isinstance(versions, dict)
                    else "",
                ),
            ]
        ),
        paragraph(
            join(["Regenerate this page from the records alone: python -m research.report RUN"]),
            class_="note",
        ),
    )


def _sessions(records: Records) -> list[dict]:
    sessions = records.environment.get("sessions")
    return [s for s in sessions if isinstance(s, dict)] if isinstance(sessions, list) else []


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) + "}"
    return number(value)
