"""What NVIDIA publishes about the GPUs that kernels are compiled for without one at hand.

Nothing here was measured. Limits of an architecture are those of the CUDA C++ Programming Guide
("Compute Capabilities"); rates are those of the data sheet of one device of that architecture,
dense, without sparsity. Copies and products reach less than that on the device.
"""

from dataclasses import dataclass

# Of every architecture below.
REGISTERS_PER_SM = 65536
WARPS_PER_SM = 64
BLOCKS_PER_SM = 32
# The driver takes this much of every block's shared memory for itself.
RESERVED_SHARED_BYTES = 1024


@dataclass(frozen=True)
class Architecture:
    """Limits of an architecture and published rates of one of its devices.

    Attributes:
        name: as `--arch` takes it, "sm_90".
        device: the device whose rates these are.
        compute_capability: major and minor number.
        sms: streaming multiprocessors.
        float32_lanes: float32 units per multiprocessor.
        clock_ghz: boost clock, GHz.
        shared_per_sm: shared memory of a multiprocessor, bytes.
        shared_per_block: the most that a block may ask for, bytes.
        memory_bytes: device memory, bytes.
        l2_bytes: second-level cache, bytes.
        bandwidth: device memory, bytes/s.
        matrix_half: bfloat16 and float16 on the matrix units, FLOP/s.
        matrix_tf32: TF32 on the matrix units, FLOP/s.
        float32: float32 on the ordinary units, FLOP/s.
    """

    name: str
    device: str
    compute_capability: tuple[int, int]
    sms: int
    float32_lanes: int
    clock_ghz: float
    shared_per_sm: int
    shared_per_block: int
    memory_bytes: int
    l2_bytes: int
    bandwidth: float
    matrix_half: float
    matrix_tf32: float
    float32: float

    @property
    def number(self) -> int:
        """The compute capability as one number, 90 for 9.0."""
        major, minor = self.compute_capability
        return 10 * major + minor


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="sm_80",
            device="A100 SXM 80 GB",
            compute_capability=(8, 0),
            sms=108,
            float32_lanes=64,
            clock_ghz=1.41,
            shared_per_sm=164 * 1024,
            shared_per_block=163 * 1024,
            memory_bytes=80 * 10**9,
            l2_bytes=40 * 2**20,
            bandwidth=2.039e12,
            matrix_half=312e12,
            matrix_tf32=156e12,
            float32=19.5e12,
        ),
        Architecture(
            name="sm_90",
            device="H200 SXM",
            compute_capability=(9, 0),
            sms=132,
            float32_lanes=128,
            clock_ghz=1.98,
            shared_per_sm=228 * 1024,
            shared_per_block=227 * 1024,
            memory_bytes=141 * 10**9,
            l2_bytes=50 * 2**20,
            bandwidth=4.8e12,
            matrix_half=989e12,
            matrix_tf32=494e12,
            float32=67e12,
        ),
        Architecture(
            name="sm_100",
            device="B200 SXM",
            compute_capability=(10, 0),
            sms=148,
            float32_lanes=128,
            clock_ghz=1.965,
            shared_per_sm=228 * 1024,
            shared_per_block=227 * 1024,
            memory_bytes=180 * 10**9,
            l2_bytes=126 * 2**20,
            bandwidth=8e12,
            matrix_half=2250e12,
            matrix_tf32=1125e12,
            float32=75e12,
        ),
    )
}


def find_architecture(name: str) -> Architecture:
    """The architecture of a name.

    Args:
        name: one of `ARCHITECTURES`.

    Returns:
        Its limits and rates.

    Raises:
        ValueError: there is none of that name.

    Example:
        >>> find_architecture("sm_90").device
        'H200 SXM'
    """
    if name not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}, got {name!r}: add it to "
            "ARCHITECTURES in kernels/architectures.py with its published limits"
        )
    return ARCHITECTURES[name]


@dataclass(frozen=True)
class Occupancy:
    """How many blocks a multiprocessor holds at a time, and what keeps out the next one."""

    blocks: int
    warps: int
    limit: str


def occupancy(
    architecture: Architecture, *, registers: int, shared_bytes: int, warps: int
) -> Occupancy:
    """Blocks per multiprocessor, by the rules of NVIDIA's occupancy calculator.

    Registers are given to a warp in units of 256 and live in four equal parts of the
    multiprocessor, so warps come in fours; shared memory is given to a block in units of 128
    bytes, after what the driver takes.

    Args:
        architecture: whose limits hold.
        registers: per thread.
        shared_bytes: per block, without what the driver takes.
        warps: per block.

    Returns:
        The occupancy; no blocks where one asks for more shared memory than it may have.

    Example:
        A flash attention kernel of 249 registers in four warps fits twice:

        >>> occupancy(find_architecture("sm_90"), registers=249, shared_bytes=49152, warps=4)
        Occupancy(blocks=2, warps=8, limit='registers')
    """
    per_warp = -(-max(registers, 1) * 32 // 256) * 256
    resident_warps = REGISTERS_PER_SM // 4 // per_warp * 4
    per_block = -(-(shared_bytes + RESERVED_SHARED_BYTES) // 128) * 128
    fits = shared_bytes <= architecture.shared_per_block
    # Of equal limits the first is named: more warps or blocks cannot be had in any way.
    limits = {
        "warps": WARPS_PER_SM // warps,
        "blocks": BLOCKS_PER_SM,
        "registers": resident_warps // warps,
        "shared": architecture.shared_per_sm // per_block if fits else 0,
    }
    limit = min(limits, key=limits.__getitem__)
    return Occupancy(limits[limit], limits[limit] * warps, limit)
