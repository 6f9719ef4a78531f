"""What a run ran on: enough to say whether another run can be compared with it."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("trellis-lab", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


def describe_environment() -> dict[str, Any]:
    """Command, commit, versions, device and platform of this process, as plain values.

    Example:
        >>> sorted(describe_environment())
        ['command', 'commit', 'cpus', 'device', 'platform', 'python', 'versions']
    """
    import jax

    device = jax.devices()[0]
    return {
        "command": " ".join([_program(), *sys.argv[1:]]),
        "commit": _commit(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "device": f"{jax.device_count()} x {device.platform}: {device.device_kind}",
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
    }


def _program() -> str:
    """What was started: `python -m package.module`, or the name of a script."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec else Path(sys.argv[0]).name


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str:
    """The commit of the checkout this code runs from, marked when it has changes."""
    here = Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"
