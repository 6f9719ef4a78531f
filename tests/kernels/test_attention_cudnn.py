"""cuDNN's attention without a GPU: what is refused, what is lowered, what XLA compiles."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels.attention import cudnn
from kernels.attention.operands import Operands
from kernels.launch import compute_capability
from kernels.offline import compile_offline, missing_for_offline

STATIC = {"scale": 1.0, "causal": False, "window": None, "soft_cap": None, "dropout_rate": 0.0}
TAKEN = [
    {},
    {"causal": True},
    {"causal": True, "window": (5, None)},
    {"causal": True, "window": (5, 3)},
    {"window": (5, 0)},
    {"query_lengths": (2,), "key_lengths": (2,)},
    {"key_lengths": (1,), "causal": True},
    {"keys": 17},
    {"key_filter": (1, 3, 2, 64), "queries": 513},
]


def struct(*shape, dtype="bfloat16"):
    return jax.ShapeDtypeStruct(shape, dtype)


def refusal(*, queries=16, keys=16, width=64, dtype="bfloat16", heads=4, key_heads=2, **more):
    arrays = {
        "query": struct(2, queries, heads, width, dtype=dtype),
        "key": struct(2, keys, key_heads, width, dtype=dtype),
        "value": struct(2, keys, key_heads, width, dtype=dtype),
    }
    for name in Operands._fields:
        if name in more:
            arrays[name] = struct(*more.pop(name), dtype="int32")
    return cudnn.attention.refusal(*Operands(**arrays), **(STATIC | more))


@pytest.mark.parametrize("call", TAKEN, ids=str)
def test_what_is_taken(call):
    with compute_capability(90):
        assert refusal(**call) is None


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"dtype": "float32"}, "bfloat16 and float16; float32 was given"),
        ({"bias": (1, 1, 16, 16)}, "no place for a bias"),
        ({"offset_bias": (1, 1, 31)}, "no place for a bias by offset"),
        ({"mask": (1, 1, 16, 16)}, "no place for a mask"),
        ({"query_segments": (2, 16), "key_segments": (2, 16)}, "no place for segments"),
        ({"position_query": (2, 16, 4, 64), "position_key": (1, 31, 4, 64)}, "relative positions"),
        ({"dropout_seeds": (2, 4, 2), "dropout_rate": 0.1}, "dropout"),
        ({"key_filter": (1, 3, 2, 64)}, "a pass over the keys before"),
        ({"soft_cap": 5.0}, "no soft cap"),
        ({"window": (2, 2)}, "windows end at the query"),
        ({"window": (2, None)}, "windows end at the query"),
        ({"window": (None, 2)}, "windows end at the query"),
        ({"causal": True, "keys": 17}, "16 and 17 were given"),
        ({"queries": 1}, "two queries"),
        ({"width": 36}, "multiple of 8 dimensions up to 256"),
        ({"width": 264}, "multiple of 8 dimensions up to 256"),
    ],
)
def test_what_is_refused_and_why(call, reason):
    with compute_capability(90):
        assert reason in str(refusal(**call))


def test_older_gpus_take_less():
    with compute_capability(80):
        assert refusal(width=128) is None
        assert "up to 128 here; 136 was given" in str(refusal(width=136))
    with compute_capability(75):
        assert "needs compute capability 8.0; this is 7.5" in str(refusal())


def test_without_a_gpu_it_is_refused_and_another_platform_does_not_try():
    if jax.default_backend() == "gpu":
        pytest.skip("there is one")
    assert "no CUDA GPU here" in str(refusal())
    q = jnp.ones((2, 8, 2, 8), jnp.bfloat16)
    with pytest.raises(NotImplementedError, match="no CUDA GPU here"):
        kernels.attention(q, q, q, implementation="cudnn")
    with compute_capability(90):
        (found,) = kernels.explain(kernels.attention, q, q, q)
        assert found.others["cudnn"] == "cuDNN runs on CUDA, not on cpu"
        with pytest.raises(NotImplementedError, match="cuDNN runs on CUDA, not on cpu"):
            jax.jit(lambda q: kernels.attention(q, q, q, implementation="cudnn")).lower(q)


def test_a_jax_that_calls_it_otherwise_is_refused(monkeypatch):
    module = pytest.importorskip(cudnn._PRIMITIVES)
    shows = "impl_wrapper" if cudnn._may_modify() else "abstract"
    monkeypatch.setattr(module, f"_dot_product_attention_bwd_{shows}", lambda query, key: None)
    with compute_capability(90):
        assert "calls cuDNN in another way (the bwd primitive takes (query, key))" in str(refusal())
    monkeypatch.delattr(module, "_dot_product_attention_fwd_p_wrapper")
    with compute_capability(90):
        assert "calls cuDNN in another way" in str(refusal())


def value_and_gradients(q, k, v, lengths):
    def total(q, k, v):
        out = kernels.attention(q, k, v, is_causal=True, key_value_seq_lengths=lengths)
        return jnp.sum(jnp.asarray(out).astype(jnp.float32) ** 2)

    return jax.value_and_grad(total, (0, 1, 2))(q, k, v)


ARRAYS = (
    struct(2, 128, 4, 64), struct(2, 128, 2, 64), struct(2, 128, 2, 64), struct(2, dtype="int32"),
)  # fmt: skip


def calls(function, *arrays):
    with compute_capability(90):
        lowered = jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
    return re.findall(r"custom_call @(__cudnn[\w$]+)", lowered), lowered.replace("\\22", '"')


def test_the_forward_pass_runs_once_and_its_options_arrive():
    found, text = calls(value_and_gradients, *ARRAYS)
    assert found == ["__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"]
    assert text.count("PADDING_CAUSAL") == 2
    found, text = calls(lambda q: kernels.attention(q, q, q, local_window_size=(5, 0)), ARRAYS[0])
    assert found == ["__cudnn$fmhaSoftmax"]
    assert '"sliding_window_length": 6' in text
    assert '"CAUSAL"' in text


def test_maps_become_rows():
    q = struct(3, 128, 2, 64)
    found, text = calls(jax.vmap(lambda q: kernels.attention(q, q, q)), q)
    assert found == ["__cudnn$fmhaSoftmax"]
    assert "tensor<3x128x2x64xbf16>" in text


@pytest.mark.skipif(missing_for_offline() is not None, reason=f"{missing_for_offline()}")
def test_xla_drops_the_branch_for_residuals_that_nothing_follows_from():
    program = compile_offline(value_and_gradients, *ARRAYS)
    assert program.custom_calls == ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")
    assert "exponential" not in program.hlo

    def with_residual(q, k, v):
        def total(q):
            return jnp.sum(kernels.attention(q, k, v, return_residual=True)[1])

        return jax.grad(total)(q)

    program = compile_offline(with_residual, *ARRAYS[:3])
    assert "exponential" in program.hlo  # the slope along the residual is XLA's


def test_everything_around_the_call_is_right(monkeypatch):
    """With XLA's attention in the place of cuDNN's primitives, which see what is padded as zero."""

    class Stand:
        def __init__(self, part):
            self.part = part

        def bind(self, q, k, v, bias, q_lengths, k_lengths, *rest, mask_type, **options):
            lengths = {}
            if "PADDING" in mask_type.name:
                lengths = {"query_seq_lengths": q_lengths, "key_value_seq_lengths": k_lengths}
            window = options["sliding_window_length"]

            def attend(q, k, v):
                return kernels.attention(
                    q, k, v, scale=options["scale"], is_causal="CAUSAL" in mask_type.name,
                    local_window_size=None if window is None else (window - 1, None),
                    return_residual=True, implementation="xla", **lengths,
                )  # fmt: skip

            if self.part == "fwd":
                out, residual = attend(q, k, v)
                assert all(np.isfinite(np.asarray(a, np.float32)).all() for a in (q, k, v))
                return out, jnp.swapaxes(residual.astype(jnp.float32), 1, 2)
            *_, stats, out, slope = rest
            assert stats.shape == (q.shape[0], q.shape[2], q.shape[1])
            assert np.isfinite(stats).all()
            assert out.shape == q.shape
            dq, dk, dv = jax.vjp(lambda *a: attend(*a)[0], q, k, v)[1](slope)
            nothing = (k_lengths == 0)[:, None, None, None]  # where cuDNN promises nothing
            return jnp.where(nothing, jnp.nan, dq), dk, dv

    monkeypatch.setattr(cudnn, "_primitive", Stand)
    generator = np.random.default_rng(0)
    normal = [jnp.asarray(generator.normal(size=(2, 9, n, 8)), jnp.bfloat16) for n in (4, 2, 2)]
    lengths = jnp.array([4, 0], jnp.int32)
    dirty = [
        jnp.where((jnp.arange(9)[None, :] >= end)[..., None, None], jnp.bfloat16(jnp.nan), a)
        for a, end in zip(normal, (3, lengths[:, None], lengths[:, None]), strict=True)
    ]
    operands = Operands(*dirty, query_lengths=jnp.array([3], jnp.int32), key_lengths=lengths)
    static = STATIC | {"scale": 0.5, "window": (1, 0)}
    xla = kernels.attention.__globals__["_operation"].load("xla")
    outputs, saved = cudnn.saving(*operands, **static)
    expected, others = xla.saving(*operands, **static)
    cotangents = (jnp.cos(normal[0]), jnp.where(jnp.isfinite(expected[1]), 0.5, 0.0))
    wanted = tuple(name in ("query", "value") for name in Operands._fields)
    found = cudnn.gradient(operands, saved, cotangents, wanted, **static)
    slopes = xla.gradient(operands, others, cotangents, wanted, **static)
    for a, b in zip((*outputs, *found), (*expected, *slopes), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        wide = [np.asarray(part, np.float32) for part in (a, b)]
        np.testing.assert_allclose(*wide, rtol=0.02, atol=0.02)
