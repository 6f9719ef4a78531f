"""Programs compiled for a GPU on a machine that need not have one."""

import importlib.metadata

import jax
import jax.numpy as jnp
import pytest

from kernels.offline import OfflineError, compile_offline, missing_for_offline

FRAMES = 1024
needs_compiler = pytest.mark.skipif(
    missing_for_offline() is not None, reason=f"offline compilation: {missing_for_offline()}"
)


def attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return jax.nn.softmax(query @ key.T) @ value


def shape(*sizes: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


@needs_compiler
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_scores_of_all_pairs_show_in_the_temporary_memory(architecture: str) -> None:
    x = shape(FRAMES, 64)
    program = compile_offline(attention, x, x, x, architecture=architecture)
    assert program.temporary_bytes >= 4 * FRAMES**2
    assert program.argument_bytes == 3 * 4 * FRAMES * 64
    assert program.output_bytes == 4 * FRAMES * 64


@needs_compiler
def test_an_operation_without_them_needs_no_temporary_memory() -> None:
    devices = jax.devices()

    @jax.jit
    def scaled(arrays: dict[str, jax.Array], *, by: jax.Array) -> dict[str, jax.Array]:
        return {name: by * array for name, array in arrays.items()}

    x = {"a": shape(FRAMES, 64), "b": shape(FRAMES, 1, dtype=jnp.bfloat16)}
    program = compile_offline(
        lambda x, by: scaled({"a": x["a"]}, by=by), x, by=jnp.ones((), jnp.float32)
    )
    assert program.temporary_bytes == 0
    # The argument that is not used is handed over all the same.
    assert program.argument_bytes == 4 * FRAMES * 64 + 2 * FRAMES + 4
    assert program.custom_calls == ()
    assert "fusion" in program.hlo
    assert jax.devices() == devices


@needs_compiler
def test_custom_calls_are_listed() -> None:
    def convolve(inputs: jax.Array, filters: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            inputs, filters, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, w = shape(4, 16, 16, 8, dtype=jnp.bfloat16), shape(3, 3, 8, 8, dtype=jnp.bfloat16)
    program = compile_offline(convolve, x, w)
    assert program.custom_calls == ("__cudnn$convForward",)


@needs_compiler
def test_the_branch_of_the_gpu_is_compiled() -> None:
    def choose(x: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(
            x, cpu=lambda x: x @ x.T @ x, cuda=lambda x: x + jnp.float32(12345.0)
        )

    program = compile_offline(choose, shape(FRAMES, 64))
    assert "12345" in program.hlo
    assert program.temporary_bytes == 0


@needs_compiler
def test_a_program_the_gpu_cannot_run_is_refused_with_the_reason() -> None:
    def on_host(x: jax.Array) -> jax.Array:
        return jax.ffi.ffi_call("no_such_kernel", jax.ShapeDtypeStruct(x.shape, x.dtype))(x)

    with pytest.raises(OfflineError, match="no_such_kernel"):
        compile_offline(on_host, shape(4))


def test_an_architecture_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="architecture must be one of"):
        compile_offline(attention, shape(4, 4), shape(4, 4), shape(4, 4), architecture="sm_1")


def test_without_the_compiler_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name.endswith("-pjrt"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name) if not name.endswith("-plugin") else real("jax")

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(OfflineError, match=f"jax-cuda12-pjrt=={real('jax')}"):
        compile_offline(attention, shape(4, 4), shape(4, 4), shape(4, 4))
