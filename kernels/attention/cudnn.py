"""Attention by cuDNN, through the primitives of JAX that call it.

``jax.nn.dot_product_attention`` runs the forward pass again when only its gradient is wanted, and
takes no residual back; the two primitives below it do. They are private, so what is used of them is
checked, and where JAX has changed them cuDNN is refused. What needs an array that cuDNN would have
to be given first (masks, biases by offset, segments) is refused too: Triton reads those in place.

XLA asks cuDNN for a gradient that has the same bits each time only under
``--xla_gpu_deterministic_ops``; the other implementations always repeat theirs.

Axes: B rows, T queries, S keys, N heads, K key heads, H dimensions of a head.
"""

import importlib
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels import launch
from kernels.attention import configs
from kernels.attention.convolved import after_filter
from kernels.attention.form import describe
from kernels.attention.operands import Operands
from kernels.dispatch import Implementation
from kernels.rows import of_rows

_PRIMITIVES = "jax._src.cudnn.fused_attention_stablehlo"
_FORWARD_ARGUMENTS = (
    "query", "key", "value", "bias", "q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets",
    "page_table_k", "page_table_v",
)  # fmt: skip
_STATIC = (
    "scale", "seed", "dropout_rate", "variadic_args", "mask_type", "layout",
    "sliding_window_length",
)  # fmt: skip
_BACKWARD_ARGUMENTS = (*_FORWARD_ARGUMENTS, "activation", "fwd_output", "grad_output")
# Since JAX 0.12 a function may change the scores: its operands, and itself, which no operand shows.
_MODIFIER_ARGUMENTS, _MODIFIER = "score_mod_args", "score_mod"
_UNREAD = ("bias", "offset_bias", "position_key", "mask", "query_segments", "dropout_seeds")
_NAMES = {
    "offset_bias": "a bias by offset",
    "bias": "a bias",
    "position_key": "relative positions",
    "mask": "a mask",
    "query_segments": "segments",
    "dropout_seeds": "dropout, whose choice it would make itself,",
}


class Plan(NamedTuple):
    """A call as cuDNN takes it: all operands of B rows, what is padded zero."""

    query: jax.Array
    key: jax.Array
    value: jax.Array
    query_lengths: Any
    key_lengths: Any
    empty: Any  # (B, T): queries that see nothing; None where there are none
    options: dict[str, Any]


def refusal(*operands, scale, causal, window, soft_cap, dropout_rate) -> str | None:
    """Why cuDNN cannot compute this, or should not; ``None`` when it is the one to take."""
    given = Operands(*operands)
    if str(given.query.dtype) not in ("bfloat16", "float16"):
        return f"cuDNN's attention takes bfloat16 and float16; {given.query.dtype} was given"
    for name in _UNREAD:
        if getattr(given, name) is not None:
            return f"cuDNN's attention has no place for {_NAMES[name]} that Triton has"
    if soft_cap is not None:
        return "cuDNN's attention has no soft cap"
    form = describe(
        given, scale=scale, causal=causal, window=window, soft_cap=None, dropout_rate=dropout_rate
    )
    if configs.filters_inside(form):
        return "cuDNN's attention needs a pass over the keys before, which Triton can do without"
    queries, keys = given.query.shape[1], given.key.shape[1]
    causal, left = _order(causal, window)
    if left is not None and not causal:
        return "cuDNN's windows end at the query: causal, or (left, 0)"
    if window is not None and not causal and window[1] is not None:
        return "cuDNN's windows end at the query: causal, or (left, 0)"
    if causal and queries != keys:
        return f"cuDNN's causal order needs T = S here; {queries} and {keys} were given"
    if min(queries, keys) < 2:
        return "cuDNN's attention needs two queries and two keys for its gradient"
    return _refusal_of_device(given.query.shape[3])


def _refusal_of_device(width: int) -> str | None:
    capability = launch.target_capability()
    if capability is None:
        capability, reason = _capability_here()
        if reason is not None:
            return reason
    if capability < 80:
        return f"cuDNN's attention needs compute capability 8.0; this is {capability / 10}"
    most = 256 if capability >= 90 else 128
    if width % 8 or width > most:
        return f"cuDNN's heads have a multiple of 8 dimensions up to {most} here; {width} was given"
    return _refusal_of_jax()


def _capability_here() -> tuple[int, str | None]:
    """Compute capability of the GPU that JAX uses, with cuDNN for it; or why there is none."""
    try:
        device = jax.devices("gpu")[0]
        major, minor = str(device.compute_capability).split(".")
    except (RuntimeError, AttributeError, ValueError):
        return 0, "there is no CUDA GPU here, so its compute capability is unknown"
    versions = importlib.import_module("jax._src.lib").cuda_versions
    if versions is None:
        return 0, "JAX has not found cuDNN"
    if versions.cuda_runtime_get_version() >= 13000:
        return 0, "cuDNN makes no plan for attention on CUDA 13 (jax-ml/jax#32430)"
    return 10 * int(major) + int(minor), None


def _refusal_of_jax() -> str | None:
    """Whether the primitives are those that this module was written for."""
    try:
        for part, arguments, more in (
            ("fwd", _FORWARD_ARGUMENTS, (*_STATIC, "is_training")),
            ("bwd", _BACKWARD_ARGUMENTS, _STATIC),
        ):
            module = importlib.import_module(_PRIMITIVES)
            _primitive(part).bind  # noqa: B018
            prefix = f"_dot_product_attention_{part}"
            expected, shows = (*arguments, *more), f"{prefix}_abstract"
            if _may_modify():
                training = more[len(_STATIC) :]
                expected = (*arguments, _MODIFIER_ARGUMENTS, *_STATIC, _MODIFIER, *training)
                shows = f"{prefix}_impl_wrapper"
            found = inspect.signature(getattr(module, shows))
            if tuple(found.parameters) != expected:
                raise AttributeError(f"the {part} primitive takes {found}")
    except (ImportError, AttributeError) as error:
        return f"this JAX ({jax.__version__}) calls cuDNN in another way ({error})"
    return None


def _may_modify() -> bool:
    """Whether the primitives ask for a function that changes the scores."""
    return hasattr(importlib.import_module(_PRIMITIVES), "_dot_product_attention_fwd_impl_wrapper")


def saving(*operands, **static):
    """Output (B, T, N, H) and log of the softmax's denominator (B, T, N); for the gradient again.

    What others save as the highest score and a sum relative to it is that log here, and one.
    """
    plan = _plan(Operands(*operands), **static)
    out, residual = _primitive("fwd").bind(*_arrays(plan), **plan.options, is_training=True)
    residual = residual.reshape(plan.query.shape[0], *residual.shape[-2:]).transpose(0, 2, 1)
    if plan.empty is not None:
        out = _zero_where(plan.empty, out)
        residual = jnp.where(plan.empty[..., None], -jnp.inf, residual)
    return (out, residual), (out, residual, jnp.ones_like(residual))


def forward(*operands, **static):
    """Output and residual."""
    return saving(*operands, **static)[0]


def gradient(operands, saved, cotangents, wanted, **static):
    """The slopes along the output by cuDNN, and along the residual by XLA if anything needs them.

    Where nothing does, the cotangent is a constant zero in the program, and XLA drops the branch.
    """
    given = Operands(*operands)
    plan = _plan(given, **static)
    out, residual, _ = saved
    slope, residual_slope = cotangents
    if plan.empty is not None:
        residual = jnp.where(plan.empty[..., None], jnp.zeros_like(residual), residual)
        slope = _zero_where(plan.empty, slope)
    along_output = _primitive("bwd").bind(
        *_arrays(plan), residual.transpose(0, 2, 1), out, slope, **plan.options
    )
    names = [name for name, want in zip(Operands._fields, wanted, strict=True) if want]
    by_name: dict[str, Any] = dict(zip(("query", "key", "value"), along_output, strict=False))
    if plan.empty is not None:
        by_name["query"] = _zero_where(plan.empty, by_name["query"])
    padded = {"query": plan.query_lengths, "key": plan.key_lengths, "value": plan.key_lengths}
    found = tuple(
        _of_own_rows(_zero_after(by_name[name], padded[name]), getattr(given, name))
        for name in names
    )
    xla = importlib.import_module("kernels.attention.xla").attention

    def with_residual():
        zero = jnp.zeros_like(slope)
        more = xla.gradient(operands, saved, (zero, residual_slope), wanted, **static)
        return tuple(a + b for a, b in zip(found, more, strict=True))

    return jax.lax.cond(jnp.any(residual_slope != 0), with_residual, lambda: found)


def _primitive(part: str) -> Any:
    return getattr(importlib.import_module(_PRIMITIVES), f"_dot_product_attention_{part}_p_wrapper")


def _order(causal: bool, window: Any) -> tuple[bool, int | None]:
    """Whether nothing after the query is seen, and how many before it are."""
    left, right = window or (None, None)
    return causal or right == 0, left


def _plan(given: Operands, *, scale, causal, window, soft_cap, dropout_rate) -> Plan:
    del soft_cap, dropout_rate
    module = importlib.import_module(_PRIMITIVES)
    rows, queries = given.query.shape[:2]
    keys = given.key.shape[1]
    causal, left = _order(causal, window)
    padding = given.query_lengths is not None or given.key_lengths is not None
    masks = module.MaskType
    kind = {
        (False, False): masks.NO_MASK,
        (True, False): masks.PADDING,
        (False, True): masks.CAUSAL,
        (True, True): masks.PADDING_CAUSAL,
    }[padding, causal]
    query_lengths = key_lengths = empty = None
    query, key, value = given.query, of_rows(given.key, rows), of_rows(given.value, rows)
    if padding:
        query_lengths = _lengths(given.query_lengths, rows, queries)
        key_lengths = _lengths(given.key_lengths, rows, keys)
        query = _zero_after(query, query_lengths)
        key, value = _zero_after(key, key_lengths), _zero_after(value, key_lengths)
        t = jnp.arange(queries, dtype=jnp.int32)[None, :]
        first = jnp.zeros_like(t) if left is None else jnp.maximum(t - left, 0)
        empty = (t >= query_lengths[:, None]) | (first >= key_lengths[:, None])
    options = {
        "scale": scale,
        "seed": 0,
        "dropout_rate": 0.0,
        "variadic_args": (False, False),
        "mask_type": kind,
        "layout": module.AttentionLayout.BTNH.value,
        "sliding_window_length": None if left is None else left + 1,
    }
    if _may_modify():
        options[_MODIFIER] = None
    return Plan(query, key, value, query_lengths, key_lengths, empty, options)


def _arrays(plan: Plan) -> tuple:
    """The primitives' arrays; what is absent is empty."""
    nothing = jnp.zeros(0, plan.query.dtype)
    lengths = [
        nothing if lengths is None else lengths
        for lengths in (plan.query_lengths, plan.key_lengths)
    ]
    return (plan.query, plan.key, plan.value, nothing, *lengths, *[nothing] * 4)


def _lengths(lengths: Any, rows: int, most: int) -> jax.Array:
    if lengths is None:
        return jnp.full(rows, most, jnp.int32)
    return jnp.clip(of_rows(lengths, rows), 0, most)


def _zero_where(empty: Any, array: Any) -> Any:
    return jnp.where(empty[..., None, None], jnp.zeros((), array.dtype), array)


def _zero_after(array: Any, lengths: Any) -> Any:
    """Zero times NaN would reach the sums."""
    if lengths is None:
        return array
    t = jnp.arange(array.shape[1], dtype=jnp.int32)
    valid = (t[None, :] < lengths[:, None])[..., None, None]
    return jnp.where(valid, array, jnp.zeros((), array.dtype))


def _of_own_rows(slope: Any, operand: Any) -> Any:
    """Summed over the rows that an operand's row serves."""
    if slope.shape[0] == operand.shape[0]:
        return slope
    by_row = slope.reshape(operand.shape[0], -1, *slope.shape[1:])
    return jnp.sum(by_row, 1, dtype=jnp.float32).astype(operand.dtype)


attention = after_filter(Implementation(forward, gradient, refusal, saving=saving))
