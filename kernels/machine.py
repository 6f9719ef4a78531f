"""What a measurement was made on, and the most that it can do: copies and matrix products."""

import datetime
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.timing import Call, Clock

_PACKAGES = ("jax", "jaxlib", "numpy", "triton", "jax-triton", "torch")
_SAMPLES = 12


def describe_machine() -> dict[str, Any]:
    """Device, driver, versions, cores, commit, load and time, as plain values; no host's name.

    Example:
        >>> sorted(describe_machine())
        ['commit', 'cpus', 'device', 'driver', 'load', 'platform', 'python', 'time', 'versions']
    """
    device = jax.devices()[0]
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_cpu = device.platform == "cpu"
    name = f"{_processor()}, {cpus} cores" if on_cpu else device.device_kind
    return {
        "platform": device.platform,
        "device": name,
        "driver": None if on_cpu else _driver(),
        "cpus": cpus,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _PACKAGES},
        "commit": _commit(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def device_slug(device: str) -> str:
    """A device's name for a file.

    Example:
        >>> device_slug("Intel(R) Xeon(R) Processor, 2 cores"), device_slug("NVIDIA H200")
        ('intel-xeon-2-cores', 'nvidia-h200')
    """
    plain = re.sub(r"\((R|TM|C)\)|\b(CPU|Processor)\b|@.*?(?=,|$)", " ", device, flags=re.I)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def _processor() -> str:
    """The model of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return next(iter((_output(command) or "").splitlines()), None)


def _commit() -> str | None:
    """The commit of the checkout, marked when it has changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return _output(command)


def _output(command: Sequence[str]) -> str | None:
    here = Path(__file__).parent
    try:
        run = subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def seconds_of_others() -> float | None:
    """Processor seconds that all other processes used since the machine started; Linux only.

    Two readings tell whether a measurement in between had the machine for itself. Time that a
    hypervisor gave to other machines counts.
    """
    try:
        ticks = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, *rest = map(int, ticks)
    busy = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
    return busy - time.process_time()


# Of a copy in bytes, of a product the side; past the caches, and long against a launch.
_SIZES = {"cpu": (2**28, 1024), "gpu": (2**31, 8192)}


def measure_ceilings(
    dtypes: Sequence[str], clock: Clock, sizes: tuple[int, int] | None = None
) -> Mapping[str, float]:
    """The most bytes and operations a second that plain XLA reaches on this device.

    Bytes are those of an array rewritten in place, read and written; operations those of a product
    of square matrices of random numbers, without TF32. Each is by the lower quartile of a dozen
    samples. What fits into a cache may exceed the former; what has no products in it cannot come
    near the latter.

    Args:
        dtypes: of the products.
        clock: the one that the contestants are timed with.
        sizes: bytes of the array, side of the matrices; the platform's by default.

    Returns:
        ``{"copy": bytes per second, "float32": operations per second, ...}``.
    """
    size, side = sizes or _SIZES[jax.default_backend()]
    array = jnp.ones((size // 4096, 1024), jnp.float32)
    found = {"copy": 2 * array.nbytes / _quick(_rewriting(array), clock)}
    for dtype in dtypes:
        key = jax.random.key(0)
        matrix = jax.random.normal(key, (side, side), jnp.float32).astype(dtype)
        product = jax.jit(functools.partial(jnp.matmul, precision="highest"))
        call = Call(functools.partial(product.lower(matrix, matrix).compile(), matrix, matrix))
        found[dtype] = 2 * side**3 / _quick(call, clock)
    return found


def _rewriting(array: jax.Array) -> Call:
    """A call that adds one in place: a new array each time would measure the allocator on a CPU."""
    add = jax.jit(lambda x: x + 1, donate_argnums=0).lower(array).compile()
    held = [array]

    def start():
        held[0] = add(held[0])
        return held[0]

    return Call(start)


def _quick(call: Call, clock: Clock) -> float:
    """Close to the best, but not one odd sample: a trace may have lost a part of the work."""
    call()
    return float(np.quantile([clock.seconds(call, 2) for _ in range(_SAMPLES)], 0.25))
