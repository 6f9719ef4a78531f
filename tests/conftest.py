"""Settings that every test runs under, and the markers that depend on the machine."""

import os
import platform
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from compilation import compiled_in_haste, sooner

# Other people's optimizers, and torch for them: no part of the environment, which has no torch.
PEERS = Path(sys.prefix, "share", "trellis", "peers")

# Those that take longest run first, or a process would be left with one of them at the end.
LONGEST = {
    "first_look.ipynb",
    "kernels.ipynb",
    "speech.ipynb",
    "test_committed_report.py",
    "test_compare_ctc.py",
    "test_compare_optimizers.py",
    "test_ctc_accuracy.py",
    "test_matrix.py",
    "test_sharding.py",
}


def _wants_gpu(config: pytest.Config) -> bool:
    expression = str(config.getoption("markexpr", default=""))
    return "gpu" in expression and "not gpu" not in expression


def _has_gpu() -> bool:
    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False


def _only_starts_processes(config: pytest.Config) -> bool:
    """Whether others run the tests, with the environment of this one."""
    in_parallel = bool(config.getoption("numprocesses", default=None))
    return in_parallel and not hasattr(config, "workerinput")


def _keep_compiled_programs(config: pytest.Config) -> None:
    """Let test processes, and the commands they start, share and keep what XLA compiles.

    Most of the time of a test is compilation. Programs for one processor may not run on another,
    so a checkout seen from several machines keeps a folder for each.
    """
    cache = getattr(config, "cache", None)
    if cache is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    settings = {
        "jax_compilation_cache_dir": str(cache.mkdir(f"jax-{platform.node()}")),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse silent broadcasting, and compute on the CPU unless the GPU is what is tested.

    What XLA is told here the commands that tests start are told as well.
    """
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if not _wants_gpu(config):
        jax.config.update("jax_platforms", "cpu")
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = sooner(os.environ.get("XLA_FLAGS", ""))
        if not _only_starts_processes(config):  # for notebooks and commands: JAX is configured here
            os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    if PEERS.is_dir():
        sys.path.append(str(PEERS))
    os.environ["TRELLIS_RUNS"] = os.devnull  # notebooks must not depend on a person's own runs
    _keep_compiled_programs(config)
    # A shell lets what it runs in the background ignore this signal, which tests send.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def in_haste() -> Iterator[None]:
    """For files whose programs take longer to compile than to run, and need not be a user's."""
    with compiled_in_haste():
        yield


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test after the argument where the value is bytes, which may hold the time of day.

    Parallel test processes refuse to start when they collect different names.
    """
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a GPU or data that are not there, and say so; begin with the longest."""
    without_gpu = pytest.mark.skip(reason="needs a GPU, and -m gpu to use it")
    without_data = pytest.mark.skip(reason="needs TRELLIS_DATA, the folder of the data sets")
    gpu_is_usable = _wants_gpu(config) and _has_gpu()
    for item in items:
        if not gpu_is_usable and item.get_closest_marker("gpu"):
            item.add_marker(without_gpu)
        if not os.environ.get("TRELLIS_DATA") and item.get_closest_marker("data"):
            item.add_marker(without_data)
    items.sort(key=lambda item: item.path.name not in LONGEST)
