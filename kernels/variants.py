"""What the static report compiles of a family: the sizes that it lists, and those in the tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from kernels import configurations
from kernels.compiled import Variant
from kernels.configurations import Entry, Tunable

# Triton's types of arrays.
POINTER = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}


class Listed(NamedTuple):
    """A kernel in sizes that a family wants to be seen in, launched as the heuristic says."""

    tunable: Tunable
    sizes: Mapping[str, Any]
    label: str


def variants(
    arch: str,
    listed: Iterable[Listed],
    tunables: Iterable[Tunable],
    variant: Callable[[Tunable, Mapping[str, Any], Any, str], Variant],
) -> Iterator[Variant]:
    """Those listed, by the heuristic; then each configuration that a table of the tree has.

    Args:
        arch: "sm_90".
        listed: by the family.
        tunables: all of the family.
        variant: ``variant(kernel, sizes, configuration, label)``, the launch.
    """
    for tunable, sizes, label in listed:
        yield variant(tunable, sizes, tunable.heuristic(arch=arch, **sizes), label)
    for tunable in tunables:
        for label, entry in _committed(tunable, arch):
            yield variant(tunable, entry.sizes, entry.config, label)


def _committed(tunable: Tunable, arch: str) -> Iterator[tuple[str, Entry]]:
    """Each configuration of the tree's tables for an architecture, once a precision, named."""
    seen = set()
    for path in sorted(configurations.TREE.glob("*.json")):
        if (configurations.read(path) or {}).get("arch") == arch:
            for entry in configurations.entries(path, tunable).values():
                new = (entry.config, entry.sizes["dtype"])
                if new not in seen:
                    seen.add(new)
                    yield f"{tunable.bucket(**entry.sizes)}/{path.stem}", entry
