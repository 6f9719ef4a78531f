"""How XLA compiles for the CPU in tests, where most of the time is compilation."""

import contextlib
from collections.abc import Iterator

import jax

# XLA has two code generators for what it fuses on a CPU, and the one that it uses by default takes
# twice as long to compile. Both compute the same, and tests of ours take the other one.
SOONER = "--xla_cpu_use_fusion_emitters=false"
# XLA ends the process at an option that it does not know; these releases of JAX know this one.
KNOWN_BELOW = (0, 11)

# For `jax.jit(..., compiler_options=...)` where a test is of what users run.
AS_USERS_DO = {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__ < KNOWN_BELOW else {}


def sooner(flags: str) -> str:
    """The value of XLA_FLAGS with the faster compiler chosen, unless a person has chosen one."""
    name = SOONER.partition("=")[0]
    return flags if jax.__version_info__ >= KNOWN_BELOW or name in flags else f"{flags} {SOONER}"


@contextlib.contextmanager
def compiled_in_haste() -> Iterator[None]:
    """For programs that take longer to compile than to run."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
