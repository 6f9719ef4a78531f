"""Which configuration a kernel is launched with, and where tuned ones are written down.

A family declares each kernel that has a configuration as a ``Tunable`` in its tuning.py, and a
launch asks it: ``CONVOLVE.choose(**sizes)``. The answer is the first of

1. an ``override`` in force;
2. an entry of the user's table for the device at hand, ``$TRELLIS_TUNING/<device>.json``, by
   default in ~/.cache/trellis/tuning;
3. an entry of the table for it in this package, kernels/results/tuning/<device>.json;
4. the heuristic for its architecture.

The device at hand is the GPU that JAX computes on by default. There is none where that is a CPU,
which interprets kernels, nor where a launch is compiled for a GPU that need not be here
(``launch.compute_capability``): then the heuristic answers. A program keeps the configurations that
it was compiled with.

A table is read once in a process. One that is damaged, or has values that no launch could use, is a
``ValueError`` that names the file. What it holds for another version of a kernel, which an upgrade
leaves behind, is ignored with a warning. ``python -m kernels.tune`` writes tables.
"""

import contextlib
import contextvars
import dataclasses
import functools
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_type_hints

import jax

from kernels import launch

FORMAT = 1
TREE = Path(__file__).parent / "results" / "tuning"

_override: contextvars.ContextVar[Mapping | None] = contextvars.ContextVar("override", default=None)
_record: contextvars.ContextVar[dict | None] = contextvars.ContextVar("record", default=None)


class Device(NamedTuple):
    """A GPU: its name as JAX has it, "NVIDIA H200", and its architecture, "sm_90"."""

    name: str
    arch: str

    @property
    def slug(self) -> str:
        """The name of its table.

        Example:
            >>> Device("NVIDIA H100 80GB HBM3", "sm_90").slug
            'nvidia-h100-80gb-hbm3'
        """
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def device() -> Device | None:
    """The NVIDIA GPU that JAX computes on by default; ``None`` where that is something else."""
    chosen = jax.config.jax_default_device or jax.local_devices()[0]  # type: ignore[attr-defined]
    if isinstance(chosen, str):
        chosen = jax.local_devices(backend=chosen)[0]
    capability = re.fullmatch(r"(\d+)\.(\d+)", getattr(chosen, "compute_capability", None) or "")
    if chosen.platform != "gpu" or capability is None:
        return None
    return Device(chosen.device_kind, "sm_" + "".join(capability.groups()))


def architecture() -> str:
    """The capability in force, or that of the device; ``sm_90`` where kernels are interpreted."""
    capability = launch.target_capability()
    here = device() if capability is None else None
    return here.arch if here else f"sm_{capability or 90}"


@dataclass(frozen=True)
class Choice:
    """A kernel's configuration and where it came from."""

    kernel: str
    config: Any
    origin: str

    def __str__(self) -> str:
        return f"{self.kernel} {self.config} from {self.origin}"


class Choices(tuple[Choice, ...]):
    """The configurations of all kernels behind a call, as ``kernels.explain`` shows them."""

    __slots__ = ()

    def __str__(self) -> str:
        return "; ".join(map(str, self))


@dataclass(frozen=True)
class Entry:
    """What a table holds for a bucket of sizes.

    Attributes:
        config: the fastest correct configuration.
        sizes: for which it was found.
        problem: the shape that they are of, and its dtype.
        seconds: median with this configuration, of the computation that it was timed in.
        heuristic_seconds: of the same with the heuristic's, in the same run.
        made_with: versions.
    """

    config: Any
    sizes: Mapping[str, Any]
    problem: str
    seconds: float
    heuristic_seconds: float
    made_with: str


@dataclass(frozen=True)
class Tunable:
    """A kernel, or one use of a kernel, with a configuration of its own.

    Sizes are keyword arguments, whatever the family needs to choose by: numbers, text, booleans.

    Attributes:
        name: "operation.kernel".
        config: a frozen dataclass of integers, booleans, text; its ``__post_init__`` refuses what
            no launch could use with a ValueError.
        heuristic: ``heuristic(arch=..., **sizes)`` -> a configuration that is right anywhere.
        candidates: ``candidates(**sizes)`` -> the configurations to try, a few dozen at most.
        bucket: ``bucket(**sizes)`` -> a readable key that near sizes share.
        module: that compiles it: its ``variant(kernel, sizes, config, label)`` gives a
            ``kernels.compiled.Variant``.
        version: to be raised when the kernel changes so that earlier measurements do not hold.
            A change of the configuration's fields is noticed without.
    """

    name: str
    config: type
    heuristic: Callable[..., Any]
    candidates: Callable[..., Iterable[Any]]
    bucket: Callable[..., str]
    module: str
    version: int = 1

    def choose(self, **sizes: Any) -> Choice:
        """The configuration to launch with.

        Raises:
            ValueError: a table that should answer is damaged.
        """
        key = self.bucket(**sizes)
        record, forced = _record.get(), _override.get()
        if record is not None:
            record[self.name, key] = (self, sizes)
        if forced is not None and (self.name, key) in forced:
            return Choice(self.name, forced[self.name, key], "an override")
        if forced is not None and self.name in forced:
            return Choice(self.name, forced[self.name], "an override")
        here = device() if launch.target_capability() is None else None
        if here is not None and forced is None:
            for whose, folder in (("your", user_folder()), ("the committed", TREE)):
                path = folder / f"{here.slug}.json"
                entry = entries(path, self).get(key)
                if entry is not None:
                    return Choice(self.name, entry.config, f"{whose} table, {path}, {key!r}")
        arch = architecture()
        return Choice(self.name, self.heuristic(arch=arch, **sizes), f"the heuristic for {arch}")


def bucket(*words: str, **sizes: int) -> str:
    """A key: words as they are, sizes rounded up to powers of two.

    Example:
        >>> bucket("bfloat16", frames=1000, width=31)
        'bfloat16 frames<=1024 width<=32'
    """
    return " ".join((*words, *(f"{name}<={round_up(size)}" for name, size in sizes.items())))


def bucket_of_sizes(*, dtype: str, **sizes: int) -> str:
    """A key of a precision and all sizes, in the order of their names.

    Example:
        >>> bucket_of_sizes(width=31, dtype="bfloat16", frames=1000)
        'bfloat16 frames<=1024 width<=32'
    """
    return bucket(dtype, **{name: sizes[name] for name in sorted(sizes)})


def round_up(size: int) -> int:
    """The least power of two from ``size`` on.

    Example:
        >>> [round_up(size) for size in (1, 31, 32, 33)]
        [1, 32, 32, 64]
    """
    return 1 << (max(size, 1) - 1).bit_length()


@contextlib.contextmanager
def override(configs: Mapping[Any, Any]) -> Iterator[None]:
    """Launches lowered inside use these configurations, and no table: the heuristic for the rest.

    A function that was compiled before keeps what it has, and so does an operation that was called
    outside of ``jit`` for these shapes.

    Args:
        configs: kernel, or (kernel, bucket), -> configuration.

    Example:
        >>> from kernels.convolution.depthwise1d.tuning import CONVOLVE, Config
        >>> with override({"depthwise_conv1d.convolve": Config(num_warps=8)}):
        ...     print(
        ...         CONVOLVE.choose(
        ...             rows=1, frames=9, channels=64, width=4, dilation=1, dtype="float32"
        ...         ).origin
        ...     )
        an override
    """
    token = _override.set(dict(configs))
    try:
        yield
    finally:
        _override.reset(token)


@contextlib.contextmanager
def record() -> Iterator[dict[tuple[str, str], tuple[Tunable, dict[str, Any]]]]:
    """What launches lowered inside ask for: (kernel, bucket) -> (tunable, sizes)."""
    asked: dict[tuple[str, str], tuple[Tunable, dict[str, Any]]] = {}
    token = _record.set(asked)
    try:
        yield asked
    finally:
        _record.reset(token)


# ---------------------------------------------------------------------- Tables


def user_folder() -> Path:
    """Where ``python -m kernels.tune`` writes by default: $TRELLIS_TUNING, or under ~/.cache."""
    return Path(os.environ.get("TRELLIS_TUNING") or os.path.expanduser("~/.cache/trellis/tuning"))


def _refuse(path: Path, what: str) -> NoReturn:
    raise ValueError(
        f"{path} is not a table of configurations: {what}. Delete it, or make it again with "
        "python -m kernels.tune"
    )


def _check(path: Path, value: Any, where: str, **fields: Any) -> None:
    """``value`` must have these fields and no others, each of its type."""
    if not isinstance(value, dict) or set(value) != set(fields):
        found = sorted(value) if isinstance(value, dict) else value
        _refuse(path, f"{where} must have the fields {sorted(fields)}, received {found!r}")
    for name, kind in fields.items():
        allowed = (int, float) if kind is float else kind
        right = isinstance(value[name], allowed)
        if not right or (kind is not bool and isinstance(value[name], bool)):
            _refuse(
                path, f"{name} of {where} must be of type {kind.__name__}, received {value[name]!r}"
            )


@functools.cache
def read(path: Path) -> dict[str, Any] | None:
    """A table as it is in its file, its structure checked; ``None`` where there is no file.

    Raises:
        ValueError: it is damaged, or of another format.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _refuse(path, str(error))
    if isinstance(table, dict) and table.get("format", FORMAT) != FORMAT:
        _refuse(path, f"its format must be {FORMAT}, received {table['format']!r}")
    _check(path, table, "the table", format=int, device=str, arch=str, kernels=dict)
    for name, section in table["kernels"].items():
        _check(path, section, name, version=int, fields=list, entries=dict)
        for key, entry in section["entries"].items():
            where = f"{name} for {key!r}"
            kinds = {"problem": str, "seconds": float, "heuristic_seconds": float, "made_with": str}
            _check(path, entry, where, config=dict, sizes=dict, **kinds)
    return table


def _fields(tunable: Tunable) -> list[str]:
    return [field.name for field in dataclasses.fields(tunable.config)]


def _is_current(section: Mapping[str, Any], tunable: Tunable) -> bool:
    """Whether a section was made for the kernel as it is, and for its buckets."""
    try:
        keys = [tunable.bucket(**entry["sizes"]) for entry in section["entries"].values()]
    except (TypeError, KeyError):
        return False
    made_for = (section["version"], section["fields"], list(section["entries"]))
    return made_for == (tunable.version, _fields(tunable), keys)


@functools.cache
def entries(path: Path, tunable: Tunable) -> Mapping[str, Entry]:
    """What a table holds for a kernel: bucket -> entry.

    Nothing, with a warning, where it was made for another version of the kernel.

    Raises:
        ValueError: the table is damaged, or has a configuration that no launch could use.
    """
    section = (read(path) or {"kernels": {}})["kernels"].get(tunable.name)
    if section is None:
        return {}
    if not _is_current(section, tunable):
        warnings.warn(
            f"{path} was made for another {tunable.name} (version {section['version']}, fields "
            f"{section['fields']}; now {tunable.version}, {_fields(tunable)}; or "
            "other buckets): its entries for it are not used. Tune again: python -m kernels.tune",
            stacklevel=2,
        )
        return {}
    found = {}
    types = get_type_hints(tunable.config)
    for key, entry in section["entries"].items():
        where = f"the configuration of {tunable.name} for {key!r}"
        _check(path, entry["config"], where, **{name: types[name] for name in _fields(tunable)})
        try:
            found[key] = Entry(**{**entry, "config": tunable.config(**entry["config"])})
        except ValueError as error:
            _refuse(path, f"{where}: {error}")
    return found


def write(path: Path, found_on: Device, tunable: Tunable, key: str, entry: Entry | None) -> None:
    """Put an entry into a table, in place of the one for this bucket; ``None`` takes that out.

    The file is replaced as a whole, so that it is never seen half written. What it holds for other
    kernels and buckets stays; for another version of this kernel it goes.

    Raises:
        ValueError: there is a table that is damaged, or of another device.
    """
    forget()
    table = check_device(path, found_on) or {
        "format": FORMAT,
        "device": found_on.name,
        "arch": found_on.arch,
        "kernels": {},
    }
    section = table["kernels"].get(tunable.name)
    if section is None or not _is_current(section, tunable):
        section = {"version": tunable.version, "fields": _fields(tunable), "entries": {}}
    kept = {k: v for k, v in section["entries"].items() if k != key}
    added = {} if entry is None else {key: dataclasses.asdict(entry)}
    section = {**section, "entries": dict(sorted({**kept, **added}.items()))}
    table = {**table, "kernels": {**table["kernels"], tunable.name: section}}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(table, indent=1) + "\n")
        os.chmod(temporary, 0o644)  # a temporary file is for its owner only
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    forget()


def check_device(path: Path, wanted: Device) -> dict[str, Any] | None:
    """The table of a file that entries for a device are to be put into; ``None`` if there is none.

    Raises:
        ValueError: it is damaged, or of another device.
    """
    table = read(path)
    if table is not None and (table["device"], table["arch"]) != wanted:
        raise ValueError(
            f"{path} must be a table of {wanted.name} ({wanted.arch}), and it is one of "
            f"{table['device']} ({table['arch']}). Choose another --out."
        )
    return table


def forget() -> None:
    """Read tables again when they are next asked for."""
    read.cache_clear()
    entries.cache_clear()
