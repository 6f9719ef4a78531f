"""Read a compiled kernel: registers and stack from the cubin, instructions from its disassembly.

A cubin is an ELF file. NVIDIA's compiler notes in its section .nv.info what each function needs,
as attributes of (format, kind, size) and a payload; the disassembler is the one that triton ships.
"""

import re
import struct
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# Kinds of attribute whose payload is the function's index in the symbol table and a number.
_REGISTERS = 0x2F
_FRAME_SIZE = 0x11
_SIZED_FORMAT = 0x04

_SASS = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
_SASS_BITS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}
_SASS_LOADS = ("LDG", "LDGSTS")
_SASS_STORES = ("STG",)
_SASS_ATOMICS = ("ATOM", "ATOMG", "RED", "REDG")
_SASS_DOUBLE = re.compile(r"D(ADD|MUL|FMA|SETP|MNMX|MMA)\b|.*\.(F64|\w*64H)\b")

_PTX_DOUBLE = re.compile(r"^\s*(?:@!?%\w+\s+)?[a-z][\w.:]*\.f64\b", re.MULTILINE)
_PTX_ACCESS = re.compile(r"\b(ld|st)\.global(?:\.[\w:]+?)*?(?:\.v(\d))?\.[bfsu](\d+)\b")
_PTX_COPY = re.compile(r"\bcp\.async\.c[ag]\.shared\.global[^,;]*,[^,;]*, *(0x[0-9a-f]+|\d+)")
_PTX_ATOMIC = re.compile(r"\b(?:atom|red)\.(?:global|[\w.]*\.global)\b")
_PTX_MATRIX = {
    "wgmma": re.compile(r"\bwgmma\.mma_async\b"),
    "mma": re.compile(r"\bmma\.sync\b"),
    "tcgen05": re.compile(r"\btcgen05\.mma\b"),
}


@dataclass(frozen=True)
class Instructions:
    """How often the instructions that matter occur in the text of a kernel.

    Attributes:
        matrix: by kind: "mma" (Ampere), "wgmma" (Hopper), "tcgen05" (Blackwell).
        double: on 64-bit floating-point numbers.
        loads: from global memory, by width in bits of what one thread loads.
        stores: to global memory, likewise.
        atomics: on global memory.
        spills: loads from and stores to local memory; None where the text is not SASS.
    """

    matrix: dict[str, int]
    double: int
    loads: dict[int, int]
    stores: dict[int, int]
    atomics: int
    spills: int | None


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers and stack of the kernel in a cubin.

    Args:
        cubin: the file, with one kernel.

    Returns:
        Registers per thread; bytes of stack per thread, more than zero where registers spill.

    Raises:
        ValueError: this is no cubin, or it does not say.
    """
    if cubin[:4] != b"\x7fELF":
        raise ValueError(f"a cubin must start with the ELF mark, got {cubin[:4]!r}")
    (table,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    # Name, type, flags, address, offset, size, ... of each section.
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + size * i) for i in range(count)]
    found: dict[int, list[int]] = {_REGISTERS: [], _FRAME_SIZE: []}
    for section in sections:
        start = sections[names][4] + section[0]
        if cubin[start : cubin.index(b"\0", start)] != b".nv.info":
            continue
        position, end = section[4], section[4] + section[5]
        while position < end:
            form, kind, value = struct.unpack_from("<BBH", cubin, position)
            position += 4
            if form == _SIZED_FORMAT:
                if kind in found:
                    found[kind].append(struct.unpack_from("<II", cubin, position)[1])
                position += value
    if not all(found.values()):
        raise ValueError("the cubin must state registers and frame size in .nv.info, it does not")
    return max(found[_REGISTERS]), max(found[_FRAME_SIZE])


def disassemble(cubin: bytes, tool: Path) -> str:
    """The SASS text of a cubin.

    Args:
        cubin: the file.
        tool: cuobjdump.

    Returns:
        The text.

    Raises:
        RuntimeError: the tool failed.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run(
            [str(tool), "-sass", file.name], capture_output=True, text=True, check=False
        )
    if run.returncode or not _SASS.search(run.stdout):
        raise RuntimeError(
            f"{tool.name} must disassemble the cubin, it ended with {run.returncode}: "
            f"{run.stderr.strip()[-500:]}"
        )
    return run.stdout


def _matrix_kind(name: str) -> str | None:
    if name.startswith("UTC") and name.endswith("MMA"):
        return "tcgen05"
    if name.endswith("GMMA"):
        return "wgmma"
    return "mma" if re.fullmatch("[HIQBO]MMA", name) else None


def count_sass(text: str) -> Instructions:
    """Count the instructions in a SASS text.

    Args:
        text: as cuobjdump prints it.

    Returns:
        The counts.

    Example:
        >>> counts = count_sass("/*0a10*/ @!P0 LDG.E.128 R4, [R2.64] ; /* 0x0000... */")
        >>> counts.loads
        {128: 1}
    """
    matrix: Counter[str] = Counter()
    loads: Counter[int] = Counter()
    stores: Counter[int] = Counter()
    double = atomics = spills = 0
    for operation in _SASS.findall(text):
        name, *modifiers = operation.split(".")
        bits = next((_SASS_BITS[m] for m in modifiers if m in _SASS_BITS), 32)
        if kind := _matrix_kind(name):
            matrix[kind] += 1
        elif name in _SASS_LOADS:
            loads[bits] += 1
        elif name in _SASS_STORES:
            stores[bits] += 1
        elif name in _SASS_ATOMICS:
            atomics += 1
        elif name in ("STL", "LDL"):
            spills += 1
        double += bool(_SASS_DOUBLE.match(operation))
    return Instructions(
        dict(sorted(matrix.items())),
        double,
        dict(sorted(loads.items())),
        dict(sorted(stores.items())),
        atomics,
        spills,
    )


def count_ptx(text: str) -> Instructions:
    """Count the instructions in a PTX text, for where there is no disassembler.

    Args:
        text: as triton emits it.

    Returns:
        The counts; spills are not known before PTX is assembled.

    Example:
        >>> count_ptx("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [ %rd1 + 0 ];").loads
        {128: 1}
    """
    loads: Counter[int] = Counter()
    stores: Counter[int] = Counter()
    for direction, lanes, bits in _PTX_ACCESS.findall(text):
        (loads if direction == "ld" else stores)[int(lanes or 1) * int(bits)] += 1
    for count in _PTX_COPY.findall(text):
        loads[8 * int(count, 0)] += 1
    matrix = {kind: len(pattern.findall(text)) for kind, pattern in _PTX_MATRIX.items()}
    return Instructions(
        {kind: n for kind, n in sorted(matrix.items()) if n},
        len(_PTX_DOUBLE.findall(text)),
        dict(sorted(loads.items())),
        dict(sorted(stores.items())),
        len(_PTX_ATOMIC.findall(text)),
        None,
    )
