"""Attention by jax.nn (XLA and cuDNN), by torch's fused kernels, and by tokamax where it is."""

import contextlib
import importlib
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.attention import reference
from kernels.peers.common import Factory, JaxPeer, LibraryPeer, find_torch, torch_device, waiting
from kernels.problems import Problem, cotangent

# What none of the peers takes as we do.
_OURS_ALONE = {
    "position_key": "it has no relative positions",
    "key_filter": "it has no filter of the keys",
    "query_segment_ids": "it has no segments: a mask of (B, 1, T, S) would have to be made first",
    "dropout_key": "it drops other probabilities",
}


def jax_peer(implementation: str) -> Factory:
    """``jax.nn.dot_product_attention``, which has the same signature."""

    def factory(problem: Problem, gradient: bool) -> JaxPeer | str:
        del gradient
        if reason := _refusal(problem):
            return reason
        if implementation == "cudnn" and jax.default_backend() != "gpu":
            return f"cuDNN runs on a GPU, and JAX uses the {jax.default_backend()}"
        if implementation == "cudnn" and problem.dtype not in ("bfloat16", "float16"):
            return f"cuDNN's attention takes bfloat16 and float16; this is {problem.dtype}"
        operands = dict(problem.operands)
        bias_fn = problem.options.get("bias_fn")
        options = {
            name: problem.options[name]
            for name in ("is_causal", "local_window_size")
            if problem.options.get(name) is not None
        }

        def function(*arguments):
            given = operands | dict(zip(problem.differentiable, arguments, strict=True))
            if bias_fn is not None:
                given["bias"] = _bias(bias_fn, given, problem.dtype)
            # Promotion of its own, and products of float32 without TF32, as ours.
            with (
                jax.numpy_dtype_promotion("standard"),
                jax.default_matmul_precision("highest")
                if problem.dtype == "float32"
                else contextlib.nullcontext(),
            ):
                theirs: Any = jax.nn.dot_product_attention
                return theirs(**given, **options, implementation=implementation)

        made = "; the bias of every offset is made as (1, N, T, S) first" if bias_fn else ""
        return JaxPeer(function, f"jax.nn/{implementation}{made}")

    return factory


def _bias(bias_fn: Any, given: Any, dtype: str) -> jax.Array:
    """(1, N, T, S) from a function of offsets."""
    queries, keys = given["query"].shape[1], given["key"].shape[1]
    by_offset = bias_fn(jnp.arange(1 - queries, keys, dtype=jnp.int32)).astype(dtype)
    wide = jnp.broadcast_to(by_offset[:, None], (by_offset.shape[0], queries, by_offset.shape[1]))
    return reference.by_offset(wide)[None]


def _refusal(problem: Problem) -> str | None:
    for name, reason in _OURS_ALONE.items():
        if name in problem.operands:
            return reason
    return "it has no soft cap" if problem.options.get("logits_soft_cap") else None


def torch_peer(backend: str) -> Factory:
    """``torch.nn.functional.scaled_dot_product_attention`` by one of its backends.

    Args:
        backend: "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION" or "MATH".
    """

    def factory(problem: Problem, gradient: bool) -> LibraryPeer | str:
        torch = find_torch()
        if isinstance(torch, str):
            return torch
        if reason := _refusal(problem):
            return reason
        if "query_seq_lengths" in problem.operands:
            return "it has no lengths: a mask of (B, 1, T, S) would have to be made first"
        if problem.options.get("local_window_size") or problem.options.get("bias_fn"):
            return "it has neither windows nor biases by offset: a mask would have to be made first"
        device, dtype = torch_device(torch), getattr(torch, problem.dtype)
        attention = importlib.import_module("torch.nn.attention")
        chosen = getattr(attention.SDPBackend, backend, None)
        if chosen is None:
            return f"this torch has no {backend}"
        operands = {name: np.asarray(array) for name, array in problem.operands.items()}

        def tensor(array, *axes):
            wide = np.array(np.asarray(array, np.float32).transpose(axes), order="C")
            return torch.from_numpy(wide).to(device=device, dtype=dtype)

        leaves = [tensor(operands[name], 0, 2, 1, 3) for name in ("query", "key", "value")]
        bias, mask = operands.get("bias"), operands.get("mask")
        if problem.options["is_causal"] and (bias is not None or mask is not None):
            return "it takes the causal order or a mask, not both"
        seen = None if mask is None else torch.from_numpy(np.array(mask)).to(device)
        if bias is not None:
            leaves.append(tensor(bias, 0, 1, 2, 3))
        grouped = leaves[0].shape[1] != leaves[1].shape[1]

        def forward(query, key, value, bias=None):
            added = bias
            if seen is not None:
                hidden = torch.zeros((), device=device, dtype=dtype).masked_fill(~seen, -torch.inf)
                added = hidden if bias is None else bias + hidden
            with attention.sdpa_kernel([chosen]):
                return torch.nn.functional.scaled_dot_product_attention(
                    query,
                    key,
                    value,
                    attn_mask=added,
                    is_causal=problem.options["is_causal"],
                    enable_gqa=grouped,
                )

        def value():
            with torch.no_grad():
                return (forward(*leaves),)

        direction = tensor(cotangent(operands["query"].shape, problem.dtype), 0, 2, 1, 3)

        def value_and_gradients():
            out = forward(*leaves)
            return (out.detach(), *torch.autograd.grad(out, leaves, direction))

        def read(results):
            arrays = [part.float().cpu().numpy() for part in results]
            return tuple(
                part if i == 4 else part.transpose(0, 2, 1, 3) for i, part in enumerate(arrays)
            )

        if gradient:
            for leaf in leaves:
                leaf.requires_grad_()
        call = value_and_gradients if gradient else value
        try:
            call()
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            return f"{backend} does not take this: {first}"
        made = ", with the mask added to the bias in each call" if mask is not None else ""
        where = "TF32 off" if device == "cuda" else f"{torch.get_num_threads()} threads"
        return LibraryPeer(
            call,
            waiting(torch, device),
            read,
            f"torch: {backend} on operands laid out (B, N, T, H), its order{made}; {where}",
        )

    return factory


def tokamax_peer(problem: Problem, gradient: bool) -> JaxPeer | str:
    """``tokamax.dot_product_attention``, where it is installed and imports."""
    del gradient
    if importlib.util.find_spec("tokamax") is None:
        return "tokamax is not installed (pip install tokamax)"
    try:
        tokamax = importlib.import_module("tokamax")
    except Exception as error:  # it pins versions of JAX and Triton, and fails in many ways
        return f"tokamax cannot be imported here: {type(error).__name__}: {error}"
    for name in ("position_key", "key_filter", "query_segment_ids", "dropout_key"):
        if name in problem.operands:
            return _OURS_ALONE[name]
    operands, bias_fn = dict(problem.operands), problem.options.get("bias_fn")
    options = {"is_causal": problem.options["is_causal"]}
    for name in ("local_window_size", "logits_soft_cap"):
        if problem.options.get(name) is not None:
            options[name] = problem.options[name]

    def function(*arguments):
        given = operands | dict(zip(problem.differentiable, arguments, strict=True))
        if bias_fn is not None:
            given["bias"] = _bias(bias_fn, given, problem.dtype)
        with jax.numpy_dtype_promotion("standard"):
            return tokamax.dot_product_attention(**given, **options)

    return JaxPeer(function, "tokamax: dot_product_attention, its own choice of kernel")
