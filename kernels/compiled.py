"""Compile one Triton kernel for a GPU that is not there, and state what it needs there."""

import importlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kernels.architectures import WARPS_PER_SM, Architecture, find_architecture, occupancy
from kernels.cubin import Instructions, count_ptx, count_sass, disassemble, resources

# Columns of tensor memory on Blackwell; triton refuses to launch a kernel that needs more.
_TENSOR_MEMORY_COLUMNS = 512
# A load of fewer bits by each thread does not reach the bandwidth of the memory.
_WIDE_BITS = 64


class ReportError(RuntimeError):
    """The report cannot be made: triton, a family or a file is missing, or does not compile."""


class Config(Protocol):
    """What a launch fixes beside the constants of the kernel."""

    @property
    def num_warps(self) -> int:
        """Warps of a block."""
        ...

    @property
    def num_stages(self) -> int:
        """Stages that loops over memory are pipelined in."""
        ...


class Variant(NamedTuple):
    """One kernel in one configuration, as `compiled_variants(arch)` of a family yields it.

    Attributes:
        name: unique in the family.
        kernel: the `@triton.jit` function.
        signature: type of each parameter that is not a constant: "*bf16", "i32". Pointers are
            taken to be divisible by 16, as JAX's buffers are.
        constants: value of each `tl.constexpr` parameter.
        config: warps and stages.
        bytes: that the launch must at least move from and to device memory.
        flops: floating-point operations of the launch.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    config: Config
    bytes: float
    flops: float


@dataclass(frozen=True)
class Row:
    """The findings on one variant for one architecture.

    Attributes:
        family: folder under kernels/.
        variant: its name.
        arch: "sm_90".
        warps: per block.
        stages: of software pipelining.
        registers: per thread.
        stack_bytes: per thread, of spilled registers.
        spills: instructions that load or store spilled registers; None without disassembler.
        shared_bytes: per block.
        matrix: matrix instructions by kind.
        double: instructions on float64.
        loads: global loads by bits per thread.
        stores: global stores by bits per thread.
        atomics: on global memory; float atomics make results depend on the order of blocks.
        blocks_per_sm: that are resident at a time.
        occupancy: resident warps over the most there can be.
        limit: what keeps out the next block.
        bytes: least traffic of the launch.
        flops: operations of the launch.
        bound_microseconds: no launch can be faster, by published rates.
        bound: "memory" or "compute".
        faults: why this must not be shipped.
        notes: what may be wrong.
    """

    family: str
    variant: str
    arch: str
    warps: int
    stages: int
    registers: int
    stack_bytes: int
    spills: int | None
    shared_bytes: int
    matrix: dict[str, int]
    double: int
    loads: dict[int, int]
    stores: dict[int, int]
    atomics: int
    blocks_per_sm: int
    occupancy: float
    limit: str
    bytes: float
    flops: float
    bound_microseconds: float
    bound: str
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def require_triton() -> Any:
    """Triton, which is an extra and large: imported when it is used.

    Raises:
        ReportError: it is not installed.
    """
    try:
        return importlib.import_module("triton")
    except ModuleNotFoundError as error:
        raise ReportError(
            "the static report compiles with triton, which is not installed: pip install "
            "'trellis-lab[triton]' (Linux)"
        ) from error


def compile_variant(variant: Variant, architecture: Architecture) -> Any:
    """Compile a variant to PTX and cubin with triton alone.

    Args:
        variant: kernel and configuration.
        architecture: to compile for.

    Returns:
        Triton's compiled kernel: texts and binary in `asm`, sizes in `metadata`.

    Raises:
        ReportError: triton is not installed, or the variant does not compile.
    """
    triton = require_triton()
    compiler = importlib.import_module("triton.compiler")
    backends = importlib.import_module("triton.backends.compiler")
    names = list(variant.kernel.arg_names)
    types = {
        name: "constexpr" if name in variant.constants else variant.signature[name]
        for name in names
    }
    pointers = [i for i, name in enumerate(names) if types[name].startswith("*")]
    source = compiler.ASTSource(
        fn=variant.kernel,
        signature=types,
        constexprs={(names.index(name),): value for name, value in variant.constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in pointers},
    )
    target = backends.GPUTarget("cuda", architecture.number, 32)
    options = {"num_warps": variant.config.num_warps, "num_stages": variant.config.num_stages}
    # A cache of its own: jax_triton empties TRITON_CACHE_DIR, and triton then fails.
    with tempfile.TemporaryDirectory(prefix="trellis-triton-") as cache, triton.knobs.cache.scope():
        triton.knobs.cache.dir = cache
        try:
            return triton.compile(source, target=target, options=options)
        except Exception as error:
            raise ReportError(
                f"{variant.name} must compile for {architecture.name}: {error}"
            ) from error


def disassembler() -> Path | None:
    """The cuobjdump that triton brings, if this triton does."""
    tool = Path(require_triton().__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return tool if tool.is_file() else None


def roofline(
    architecture: Architecture, *, bytes: float, flops: float, rate: float
) -> tuple[float, str]:
    """The least time of a launch by published rates, and what sets it.

    Args:
        architecture: whose memory bandwidth holds.
        bytes: that must move.
        flops: that must be done.
        rate: FLOP/s of the units that do them.

    Returns:
        Microseconds; "memory" or "compute".

    Example:
        >>> roofline(find_architecture("sm_90"), bytes=4.8e6, flops=0.0, rate=67e12)
        (1.0, 'memory')
    """
    memory, compute = bytes / architecture.bandwidth, flops / rate
    return round(max(memory, compute) * 1e6, 3), "compute" if compute > memory else "memory"


def _rate(architecture: Architecture, matrix: Mapping[str, int], ptx: str) -> float:
    if not matrix:
        return architecture.float32
    tf32 = re.search(r"\b(wgmma|mma|tcgen05)\.[^\n;]*tf32", ptx)
    return architecture.matrix_tf32 if tf32 else architecture.matrix_half


def _notes(counts: Instructions, ttir: str) -> Iterator[str]:
    if "tt.dot" in ttir and not counts.matrix:
        yield "tl.dot without matrix instructions"
    loaded = sum(bits * n for bits, n in counts.loads.items())
    narrow = sum(bits * n for bits, n in counts.loads.items() if bits < _WIDE_BITS)
    if narrow > loaded / 2:
        yield f"most loads have under {_WIDE_BITS} bits per thread"


def examine(variant: Variant, arch: str, *, family: str = "", use_sass: bool = True) -> Row:
    """Compile one variant and read what it needs.

    Args:
        variant: kernel and configuration.
        arch: one of `kernels.architectures.ARCHITECTURES`.
        family: to name in the row.
        use_sass: disassemble if triton brings the tool; otherwise count in PTX.

    Returns:
        The findings.

    Raises:
        ReportError: triton is missing, or the variant does not compile.
    """
    architecture = find_architecture(arch)
    compiled = compile_variant(variant, architecture)
    return read_compiled(variant, compiled, architecture, family=family, use_sass=use_sass)


def read_compiled(
    variant: Variant,
    compiled: Any,
    architecture: Architecture,
    *,
    family: str = "",
    use_sass: bool = True,
) -> Row:
    """Read what a compiled variant needs.

    Args:
        variant: what was compiled.
        compiled: the result of `compile_variant`.
        architecture: what it was compiled for.
        family: to name in the row.
        use_sass: disassemble if triton brings the tool; otherwise count in PTX.

    Returns:
        The findings.
    """
    ptx, cubin, metadata = compiled.asm["ptx"], compiled.asm["cubin"], compiled.metadata
    tool = disassembler() if use_sass else None
    counts = count_sass(disassemble(cubin, tool)) if tool else count_ptx(ptx)
    registers, stack = resources(cubin)
    faults = []
    if stack or counts.spills:
        faults.append(f"spills registers: {stack} bytes of stack")
    if counts.double:
        faults.append(f"{counts.double} float64 instructions")
    if metadata.shared > architecture.shared_per_block:
        faults.append(
            f"{metadata.shared} bytes of shared memory, limit {architecture.shared_per_block}"
        )
    if (getattr(metadata, "tmem_size", 0) or 0) > _TENSOR_MEMORY_COLUMNS:
        faults.append(f"{metadata.tmem_size} columns of tensor memory, limit 512")
    if getattr(metadata, "global_scratch_size", 0):
        faults.append("needs a scratch buffer, which jax_triton does not pass")
    resident = occupancy(
        architecture,
        registers=registers,
        shared_bytes=metadata.shared,
        warps=variant.config.num_warps,
    )
    bound_microseconds, bound = roofline(
        architecture,
        bytes=variant.bytes,
        flops=variant.flops,
        rate=_rate(architecture, counts.matrix, ptx),
    )
    return Row(
        family=family,
        variant=variant.name,
        arch=architecture.name,
        warps=variant.config.num_warps,
        stages=variant.config.num_stages,
        registers=registers,
        stack_bytes=stack,
        shared_bytes=metadata.shared,
        blocks_per_sm=resident.blocks,
        occupancy=round(resident.warps / WARPS_PER_SM, 3),
        limit=resident.limit,
        bytes=variant.bytes,
        flops=variant.flops,
        bound_microseconds=bound_microseconds,
        bound=bound,
        faults=tuple(faults),
        notes=tuple(_notes(counts, compiled.asm["ttir"])),
        **asdict(counts),
    )
