"""Compile a jitted function for a GPU that is not there, and read what XLA made of it.

XLA compiles for a GPU from a description of it. No GPU, driver or CUDA toolkit is needed, only
JAX's CUDA plugin and its PJRT library. The function is lowered in this process, whatever its
platform, and compiled in a child process, because the CUDA plugin would otherwise change what
`jax.devices()` finds here. XLA cannot try out algorithms without the device, so which product or
convolution algorithm it takes may differ from what it takes there; buffers and calls into kernels
of ours do not depend on that.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from kernels.architectures import Architecture, find_architecture
from kernels.launch import CUDA_PLUGIN, compute_capability, cuda_plugin

_CUSTOM_CALL = re.compile(r'custom_call_target="([^"]+)"')
_LOWERED_CUSTOM_CALL = re.compile(r"stablehlo\.custom_call @([\w$.]+)")

_CHILD = """
import dataclasses, json, pathlib, sys
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

folder = pathlib.Path(sys.argv[1])
request = json.loads((folder / "request.json").read_text())
if "triton_kernel_call" in request["custom_calls"]:
    import jaxlib.gpu_triton  # registers the call with XLA

def structs(shapes, **settings):
    return [jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), **settings) for shape, dtype in shapes]

inputs, outputs = request["inputs"], structs(request["outputs"])
frame = jax.export.export(
    jax.jit(lambda *_: [jnp.zeros(o.shape, o.dtype) for o in outputs], keep_unused=True),
    platforms=["cuda"],
)(*structs(inputs))
# The same signature around the program: JAX's own serialisation would need flatbuffers.
program = dataclasses.replace(
    frame, mlir_module_serialized=(folder / "program.mlir").read_bytes()
)
description = topologies.get_topology_desc(
    platform="cuda", topology="1x1x1", target_config=request["device"]
)
here = SingleDeviceSharding(description.devices[0])
compiled = (
    jax.jit(program.call, in_shardings=here, out_shardings=here)
    .trace(*structs(inputs, sharding=here))
    .lower(lowering_platforms=("cuda",))
    .compile()
)
memory = compiled.memory_analysis()
(folder / "program.hlo").write_text(compiled.as_text())
(folder / "memory.json").write_text(json.dumps({
    "temporary_bytes": memory.temp_size_in_bytes,
    "argument_bytes": memory.argument_size_in_bytes,
    "output_bytes": memory.output_size_in_bytes,
}))
"""


class OfflineError(RuntimeError):
    """The compiler for the GPU is missing or refused the program."""


@dataclass(frozen=True)
class OfflineProgram:
    """A program as XLA compiled it for a GPU.

    Attributes:
        hlo: the optimised HLO text.
        custom_calls: targets of the custom calls in it, in the order of the text.
        temporary_bytes: what it needs on the device beside arguments and results.
        argument_bytes: its arguments.
        output_bytes: its results.
    """

    hlo: str
    custom_calls: tuple[str, ...]
    temporary_bytes: int
    argument_bytes: int
    output_bytes: int


def missing_for_offline() -> str | None:
    """Say what must be installed before `compile_offline` can work, or None.

    Example:
        >>> reason = missing_for_offline()
        >>> reason is None or reason.startswith("jax-cuda")
        True
    """
    wanted = importlib.metadata.version("jax")
    names = ("plugin", "pjrt")
    found: dict[str, str] = {}
    for line in ("cuda12", "cuda13"):
        versions = {}
        for name in names:
            try:
                with cuda_plugin():
                    versions[name] = importlib.metadata.version(f"jax-{line}-{name}")
            except importlib.metadata.PackageNotFoundError:
                continue
        if len(versions) == len(names):
            return None
        found.update({f"jax-{line}-{name}": version for name, version in versions.items()})
    return (
        f"jax-cuda12-plugin and jax-cuda12-pjrt are needed, found {found or 'neither'}: "
        f"pip install --no-deps jax-cuda12-plugin=={wanted} jax-cuda12-pjrt=={wanted}"
    )


def _describe(architecture: Architecture) -> str:
    """XLA's target configuration, a text protocol buffer (GpuTargetConfigProto)."""
    major, minor = architecture.compute_capability
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {architecture.shared_per_sm}
  shared_memory_per_block_optin: {architecture.shared_per_block}
  threads_per_core_limit: 2048
  core_count: {architecture.sms}
  fpus_per_core: {architecture.float32_lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {int(architecture.bandwidth)}
  l2_cache_size: {architecture.l2_bytes}
  clock_rate_ghz: {architecture.clock_ghz}
  device_memory_size: {architecture.memory_bytes}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "NVIDIA {architecture.device}"
"""


def compile_offline(
    function: Callable[..., Any], *arguments: Any, architecture: str = "sm_90", **keywords: Any
) -> OfflineProgram:
    """Compile a function for one GPU, on a machine that need not have one.

    Triton kernels in it, launched by `kernels.launch`, are compiled while it is lowered here.

    Args:
        function: a pure function of arrays, jitted or not.
        arguments: arrays or `jax.ShapeDtypeStruct`s, or pytrees of them.
        architecture: one of `kernels.architectures.ARCHITECTURES`.
        keywords: likewise, by name.

    Returns:
        Its HLO, custom calls and memory.

    Raises:
        OfflineError: JAX's CUDA plugin or PJRT library is missing, or XLA refused the program.
        ValueError: the architecture is not known.

    Example:
        A matrix of scores between all pairs shows in the temporary memory::

            x = jax.ShapeDtypeStruct((4096, 64), jnp.float32)
            compile_offline(lambda x: jax.nn.softmax(x @ x.T) @ x, x).temporary_bytes
    """
    device = find_architecture(architecture)
    if reason := missing_for_offline():
        raise OfflineError(f"compiling for a GPU without one: {reason}")
    leaves, tree = jax.tree.flatten((arguments, keywords))

    def flat(*leaves: Any) -> Any:
        arguments, keywords = jax.tree.unflatten(tree, leaves)
        return jax.tree.leaves(function(*arguments, **keywords))

    jitted = jax.jit(flat, keep_unused=True)
    with compute_capability(device.number):
        lowered = jitted.trace(*leaves).lower(lowering_platforms=("cuda",))
        custom_calls = sorted({*_LOWERED_CUSTOM_CALL.findall(lowered.as_text())})
        # The program does not leave this machine, so its custom calls need not be stable ones.
        checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in custom_calls]
        exported = jax.export.export(jitted, platforms=["cuda"], disabled_checks=checks)(*leaves)
    request = {
        "device": _describe(device),
        "custom_calls": custom_calls,
        "inputs": [(a.shape, jnp.dtype(a.dtype).name) for a in exported.in_avals],
        "outputs": [(a.shape, jnp.dtype(a.dtype).name) for a in exported.out_avals],
    }
    with tempfile.TemporaryDirectory(prefix="trellis-offline-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(json.dumps(request))
        (folder / "program.mlir").write_bytes(exported.mlir_module_serialized)
        _run_child(folder)
        hlo = (folder / "program.hlo").read_text()
        memory = json.loads((folder / "memory.json").read_text())
    return OfflineProgram(hlo, tuple(_CUSTOM_CALL.findall(hlo)), **memory)


def _run_child(folder: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, (os.environ.get("PYTHONPATH"), str(CUDA_PLUGIN)))
        ),
        # No driver to compare versions with.
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        # The child computes nothing, on no device.
        "JAX_PLATFORMS": "cpu",
        # A program out of the cache has no memory analysis.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "JAX_ENABLE_X64": str(bool(jax.config.read("jax_enable_x64"))).lower(),
    }
    command = [sys.executable, "-c", _CHILD, str(folder)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if child.returncode:
        lines = [line for line in child.stderr.splitlines() if line.strip()]
        raise OfflineError(
            f"XLA did not compile the program (exit status {child.returncode}):\n"
            + "\n".join(lines[-20:])
        )
