"""Checkpoints that are exact on resume and know when they are damaged.

Orbax writes the arrays. It restores a file with flipped bits without a word, so a manifest of
SHA-256 sums is written beside each step and checked before anything is restored; a step that fails
is passed over for the one before.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, Key

from research.errors import RunError
from research.train import State

_KEPT = 2


def save(directory: Path, state: State, key: Key[Array, ""]) -> None:
    """Write state and key under the state's step number; returns when they are on disk.

    The last two steps are kept, damaged ones not counted: these go, as nothing can be restored from
    them. Saving the same step again does nothing. Typed keys may be among the arrays.

    Args:
        directory: where this training's checkpoints live; made if absent.
        state: parameters, optimizer state and step; the step is also the position in the data.
        key: the run's random key.

    Raises:
        RunError: the directory cannot be written, it has a later checkpoint or another one of this
            step, or an array is empty.

    Example:
        >>> import jax, jax.numpy as jnp, optax, tempfile
        >>> from research.train import init_state
        >>> state, key = init_state(jnp.arange(3.0), optax.adam(0.1)), jax.random.key(7)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder), state, key)
        ...     restored, _ = restore_latest(Path(folder), state, key)
        >>> restored.params
        Array([0., 1., 2.], dtype=float32)
    """
    step, tree = int(state.step), _raw({"state": tuple(state), "key": key})
    for line, leaf in zip(_describe(tree), jax.tree.leaves(tree), strict=True):
        if not leaf.size:
            raise RunError(f"every array of a checkpoint must have an element; received {line}.")
    content = {"arrays": _describe(tree), "values": _digest(tree)}
    try:
        with _manager(directory) as manager:
            for other in sorted(manager.all_steps()):
                if not _intact(directory, other):
                    manager.delete(other)
                elif (
                    other == step
                    and _read_manifest(directory, step).get("values") == content["values"]
                ):
                    return
                elif other >= step:
                    raise RunError(
                        f"checkpoints must be written in the order of their steps; received step "
                        f"{step}, and {directory / str(other)} is there. Begin a training anew in "
                        "a folder of its own, or remove the one that is there."
                    )
            manager.save(step, args=ocp.args.StandardSave(tree), force=True)
            manager.wait_until_finished()
        _write_manifest(directory, step, content)
    except OSError as error:
        raise RunError(
            f"a checkpoint must be written to {directory}; the system says: {error}. "
            "Free some space or choose another --out."
        ) from error


def restore_latest(
    directory: Path, like: State, key: Key[Array, ""]
) -> tuple[State, Key[Array, ""]] | None:
    """The newest undamaged checkpoint, or None where there is none.

    Args:
        directory: as given to ``save``.
        like: a state of the same structure, shapes and types, such as the initial one.
        key: a key of the same kind.

    Returns:
        State and key, bit for bit as saved; None if nothing usable is there. A damaged step is
        passed over with a warning in the log.

    Raises:
        RunError: the checkpoint is of another model or optimizer.
    """
    if not directory.is_dir():
        return None
    with _manager(directory) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            if not _intact(directory, step):
                logging.getLogger(__name__).warning(
                    "checkpoint %s is damaged or incomplete; trying the one before",
                    directory / str(step),
                )
                continue
            wanted = {"state": tuple(like), "key": key}
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _raw(wanted))
            if _read_manifest(directory, step)["arrays"] != _describe(abstract):
                raise RunError(
                    f"the checkpoint {directory / str(step)} must fit the model and the optimizer; "
                    "it was saved with others. Start anew with --fresh."
                )
            tree = manager.restore(step, args=ocp.args.StandardRestore(abstract))
            tree = jax.tree.map(_as_wanted, tree, wanted)
            return State(*tree["state"]), tree["key"]
    return None


def _raw(tree: Any) -> Any:
    """With the data of typed keys in their place, as files hold them."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _is_key(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def _as_wanted(restored: Any, like: Any) -> Any:
    """A key where ``like`` is one, and bound to its devices only if ``like`` is.

    A step that was compiled for a free array would not take one that is bound.
    """
    if not getattr(like, "committed", False):
        restored = jnp.asarray(np.asarray(restored))
    return (
        jax.random.wrap_key_data(restored, impl=jax.random.key_impl(like))
        if _is_key(like)
        else restored
    )


def _describe(tree: Any) -> list[str]:
    """Name, shape and type of every array."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}" for path, leaf in leaves]


def _digest(tree: Any) -> str:
    """Of the bits of all arrays."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()


def _manager(directory: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=_KEPT, cleanup_tmp_directories=True, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(directory.absolute(), options=options)


def _sums(step_directory: Path) -> dict[str, str]:
    files = sorted(path for path in step_directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(step_directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _manifest(directory: Path, step: int) -> Path:
    return directory / f"sha256-{step}.json"


def _write_manifest(directory: Path, step: int, content: dict[str, Any]) -> None:
    temporary = directory / f".sha256-{step}.tmp"
    temporary.write_text(json.dumps({**content, "sha256": _sums(directory / str(step))}))
    os.replace(temporary, _manifest(directory, step))
    for path in directory.glob("sha256-*.json"):
        if not (directory / path.stem.removeprefix("sha256-")).is_dir():
            path.unlink()


def _read_manifest(directory: Path, step: int) -> dict[str, Any]:
    return json.loads(_manifest(directory, step).read_text())


def _intact(directory: Path, step: int) -> bool:
    try:
        manifest = _read_manifest(directory, step)
        return manifest["sha256"] == _sums(directory / str(step)) and "arrays" in manifest
    except (OSError, ValueError, KeyError, TypeError):
        return False
