"""Between the tensors of a published checkpoint and the variables of our models, both ways.

The modules of `research.models` carry the names of the checkpoint, so the path of a parameter is
its key; only the leaves differ, in name and in the order of their axes (PyTorch has outputs first).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.errors import DataError

Variables = dict[str, Any]
_LISTED = re.compile(r"((?:conv_)?layers)_(\d+)")


class _Leaf(NamedTuple):
    """What a kind of leaf is called in a checkpoint, and its axes there and here."""

    name: str
    ours: Callable[[np.ndarray], np.ndarray]
    theirs: Callable[[np.ndarray], np.ndarray]


def _same(array):
    return array


_LEAVES = {
    "kernel": _Leaf("weight", np.transpose, np.transpose),
    "scale": _Leaf("weight", _same, _same),
    "embedding": _Leaf("weight", _same, _same),
    "filters": _Leaf(
        "weight",
        lambda array: np.moveaxis(array, (1, 0), (-2, -1)),
        lambda array: np.moveaxis(array, (-2, -1), (1, 0)),
    ),
    "channel_filters": _Leaf(
        "weight",
        lambda array: np.moveaxis(array[:, 0], 0, -1),
        lambda array: np.moveaxis(array, -1, 0)[:, None],
    ),
    "weight_g": _Leaf(
        "parametrizations.weight.original0",
        lambda array: array[0, 0],
        lambda array: array[None, None],
    ),
    "weight_v": _Leaf("parametrizations.weight.original1", np.transpose, np.transpose),
    "mean": _Leaf("running_mean", _same, _same),
    "variance": _Leaf("running_var", _same, _same),
}
_MEAN = ".running_mean"
# Weight norm as torch stored it before 2.1.
_OLD_NAMES = {"weight_g": _LEAVES["weight_g"].name, "weight_v": _LEAVES["weight_v"].name}
# Counters, buffers that are computed, and what only pre-training needs.
_IGNORED = re.compile(
    r"\.num_batches_tracked$|\.inv_freq$|\.embed_positions\.pe$"
    r"|^(quantizer|project_q|project_hid|final_proj|label_embeddings_concat)\b"
)


def from_tensors(
    tensors: Mapping[str, np.ndarray], like: Variables, *, dtype: Any = jnp.float32
) -> Variables:
    """Variables of a model from the tensors of a checkpoint.

    A missing ``masked_spec_embed`` is taken as zero: many checkpoints lack it, and only training
    with masks uses it.

    Args:
        tensors: arrays by their key in the checkpoint; floating, of any precision.
        like: what the model's ``init`` gives, or its shapes (``jax.eval_shape``).
        dtype: of all parameters.

    Returns:
        A tree like ``like``.

    Raises:
        DataError: a tensor is missing, superfluous, of another shape or not floating.

    Example:
        >>> like = {"params": {"lm_head": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}}}
        >>> tensors = {"lm_head.weight": np.ones((3, 2)), "lm_head.bias": np.zeros(3)}
        >>> from_tensors(tensors, like)["params"]["lm_head"]["kernel"].shape
        (2, 3)
    """
    tensors = {_modern(key): value for key, value in tensors.items()}
    leaves, tree = jax.tree_util.tree_flatten_with_path(like)
    keys = [_key(path) for path, _ in leaves]
    _check_names(keys, tensors)
    values = []
    for key, (path, leaf) in zip(keys, leaves, strict=True):
        if key not in tensors:
            values.append(jnp.zeros(leaf.shape, dtype))
            continue
        tensor = tensors[key]
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise DataError(
                f"weights must be floating, but {key} is {tensor.dtype}; quantised checkpoints are "
                "not read: take the one they were made from"
            )
        expected = np.shape(_theirs(path, np.empty(leaf.shape, np.bool_)))
        if tensor.shape != expected:
            raise DataError(
                f"config.json asks for {key} of shape {expected}, but the checkpoint has "
                f"{tensor.shape}; do the two belong together?"
            )
        values.append(jnp.asarray(np.ascontiguousarray(_ours(path, tensor)), dtype))
    return jax.tree_util.tree_unflatten(tree, values)


def to_tensors(variables: Variables) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint from variables of a model, for `from_tensors` to read again.

    Example:
        >>> sorted(
        ...     to_tensors({"params": {"layers_0": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}})
        ... )
        ['layers.0.bias', 'layers.0.weight']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    tensors = {
        _key(path): np.ascontiguousarray(_theirs(path, np.asarray(leaf))) for path, leaf in leaves
    }
    # PyTorch counts what it took the statistics of a batch norm from.
    counters = [name.removesuffix(_MEAN) for name in tensors if name.endswith(_MEAN)]
    return tensors | {f"{name}.num_batches_tracked": np.zeros((), np.int64) for name in counters}


def _names(path) -> list[str]:
    """The names on a path without that of the collection."""
    return [entry.key for entry in path[1:]]


def _key(path) -> str:
    *modules, leaf = _names(path)
    listed = [_LISTED.fullmatch(name) for name in modules]
    modules = [
        f"{match[1]}.{match[2]}" if match else name
        for name, match in zip(modules, listed, strict=True)
    ]
    return ".".join([*modules, _LEAVES[leaf].name if leaf in _LEAVES else leaf])


def _ours(path, tensor):
    leaf = _names(path)[-1]
    return _LEAVES[leaf].ours(tensor) if leaf in _LEAVES else tensor


def _theirs(path, array):
    leaf = _names(path)[-1]
    return _LEAVES[leaf].theirs(array) if leaf in _LEAVES else array


def _modern(key: str) -> str:
    *modules, leaf = key.split(".")
    return ".".join([*modules, _OLD_NAMES.get(leaf, leaf)])


def _check_names(keys: list[str], tensors: Mapping[str, np.ndarray]) -> None:
    missing = [key for key in keys if key not in tensors and not key.endswith("masked_spec_embed")]
    extra = sorted(
        key
        for key in tensors.keys() - set(keys)
        if not _IGNORED.search(key) and not key.endswith("masked_spec_embed")
    )
    if missing or extra:
        raise DataError(
            "the weights must be those that config.json describes, but "
            + " and ".join(
                f"{len(names)} tensors {what} (first: {', '.join(names[:3])})"
                for names, what in ((missing, "are missing"), (extra, "have no place"))
                if names
            )
            + "; do the two belong together, and was the model fine-tuned with a CTC head?"
        )
