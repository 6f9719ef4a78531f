"""What an iteration of a compiled loop costs: instructions, shuffles, barriers, memory accesses.

    python -m kernels.loops ctc --arch sm_90

For kernels whose time is the latency of a loop over frames, which a roofline says nothing about.
A kernel's loop is the largest that contains no other. Where its configuration says how many
``frames`` an iteration has, counts are per frame. Nothing here is a time.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from kernels.architectures import ARCHITECTURES, find_architecture
from kernels.compiled import ReportError, Variant, compile_variant, disassembler
from kernels.cubin import disassemble
from kernels.static_report import families, variants

_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;\n]*);")
_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")


@dataclass(frozen=True)
class Loop:
    """Instructions of a warp in one iteration.

    Attributes:
        instructions: all of them.
        shuffles: between the lanes of a warp.
        barriers: at which the warps of a block meet.
        special: exponentials, reciprocals, roots.
        shared: loads from and stores to shared memory.
        loads: from global memory.
        stores: to global memory.
    """

    instructions: int
    shuffles: int
    barriers: int
    special: int
    shared: int
    loads: int
    stores: int


def innermost_loops(text: str) -> list[Loop]:
    """The loops of a SASS text that contain no other, in its order.

    A loop is from a target to the branch back to it.

    Args:
        text: as cuobjdump prints it, of one kernel.

    Returns:
        Their counts.

    Example:
        >>> sass = "/*0000*/ MOV R1, R2 ; /*0010*/ SHFL.UP R1, R1 ; /*0020*/ @P0 BRA 0x10 ;"
        >>> innermost_loops(sass)[0].instructions
        2
    """
    found = [(int(at, 16), name.split(".")[0], rest) for at, name, rest in _LINE.findall(text)]
    place = {at: i for i, (at, _, _) in enumerate(found)}
    spans = []
    for i, (at, name, rest) in enumerate(found):
        target = _TARGET.search(rest.strip()) if name == "BRA" else None
        # A branch to itself is what the assembler fills the end with.
        if target and int(target[1], 16) < at:
            spans.append((place[int(target[1], 16)], i))
    inner = [
        (first, last)
        for first, last in spans
        if not any(first <= a and b <= last for a, b in spans if (a, b) != (first, last))
    ]
    return [_count([name for _, name, _ in found[first : last + 1]]) for first, last in inner]


def _count(names: Sequence[str]) -> Loop:
    def count(*wanted: str) -> int:
        return sum(name in wanted for name in names)

    return Loop(
        instructions=len(names),
        shuffles=count("SHFL"),
        barriers=count("BAR"),
        special=count("MUFU"),
        shared=count("LDS", "STS", "LDSM", "STSM"),
        loads=count("LDG"),
        stores=count("STG"),
    )


def largest_loop(variant: Variant, arch: str) -> Loop | None:
    """The largest innermost loop of a variant; ``None`` where it has no loop.

    Args:
        variant: kernel and configuration.
        arch: "sm_90".

    Returns:
        The counts of an iteration.

    Raises:
        ReportError: triton or its disassembler is missing, or the variant does not compile.
    """
    compiled = compile_variant(variant, find_architecture(arch))
    tool = disassembler()
    if tool is None:
        raise ReportError("this triton brings no cuobjdump, which shows the loops of a kernel")
    loops = innermost_loops(disassemble(compiled.asm["cubin"], tool))
    return max(loops, key=lambda loop: loop.instructions, default=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 2 where nothing can be compiled."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels.loops",
        description="Count the instructions of each kernel's largest loop, without a GPU.",
    )
    parser.add_argument("families", metavar="FAMILY", nargs="*", help="all, if none is named")
    parser.add_argument(
        "--arch", action="append", choices=list(ARCHITECTURES), help="repeatable; default: all"
    )
    options = parser.parse_args(arguments)
    table = Table(title="An iteration of the largest loop; per frame where frames are known")
    for column in ("kernel", "arch", "warps", "frames", *Loop.__dataclass_fields__):
        table.add_column(column, justify="left" if column in ("kernel", "arch") else "right")
    try:
        for family in options.families or families():
            for arch in options.arch or ARCHITECTURES:
                for variant in variants(family, arch):
                    loop = largest_loop(variant, arch)
                    if loop is None:
                        continue
                    frames = getattr(variant.config, "frames", None)
                    counts = [f"{n / (frames or 1):g}" for n in vars(loop).values()]
                    warps = str(variant.config.num_warps)
                    table.add_row(variant.name, arch, warps, str(frames or "–"), *counts)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
