"""CTC in Triton: what is launched with which sizes.

The value is three launches: ``normalise`` (largest logit of each frame and sum of the others),
``advance`` and ``meet`` (the recursion). Saved for the gradient are these and the occupancy, by
``spread`` and ``finish`` in addition. Their arrays of (B, T, N + 1) are two: shares, posteriors and
the occupancy take each other's place. The gradient is one launch.

Axes: B rows, T frames, K classes, N labels.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kernels import launch
from kernels.compiled import Variant
from kernels.configurations import Choices, Tunable, round_up
from kernels.ctc import configs, frames, recursion
from kernels.dispatch import Implementation
from kernels.variants import POINTER, Listed, variants

MOST_LABELS = 1023
# Elements of a program of `finish`.
_ELEMENTS = 2048


def _forward(logits, valid, labels, lengths, *, blank_id):
    return (_run(logits, valid, labels, lengths, blank_id, save=False)[0],)


def _saving(logits, valid, labels, lengths, *, blank_id):
    results = _run(logits, valid, labels, lengths, blank_id, save=True)
    return results[:1], results[1:]


def _occupancy(logits, valid, labels, lengths, *, blank_id):
    return _run(logits, valid, labels, lengths, blank_id, save=True)[1:2]


def _run(logits, valid, labels, lengths, blank_id, *, save):
    """The loss; with ``save`` the occupancy, the largest logits and the sums of the others too."""
    rows, size, _ = logits.shape
    count = labels.shape[1]
    if rows * size == 0:
        empty = jnp.repeat(lengths == 0, rows // max(1, lengths.shape[0]))
        loss = jnp.where(empty, jnp.zeros(rows, jnp.float32), jnp.full(rows, jnp.inf, jnp.float32))
        saved = (jnp.zeros((rows, size, *more), jnp.float32) for more in ((count + 1,), (), ()))
        return (loss, *saved) if save else (loss,)

    def local(logits, valid, labels, lengths):
        return _launch(logits, valid, labels, lengths, blank_id, count, save)

    labels = labels if count else jnp.zeros((labels.shape[0], 1), labels.dtype)
    of_valid, of_labels, of_lengths = (
        launch.row_axis(axis, array, logits)
        for axis, array in (("v", valid), ("l", labels), ("m", lengths))
    )
    rule = f"b t k, {of_valid} t, {of_labels} n, {of_lengths} -> b"
    rule += ", b t w, b t, b t" if save else ""
    return launch.sharded(
        local, rule, logits, valid, labels, lengths,
        whole=_whole(rule, logits, valid, labels, lengths),
    )  # fmt: skip


def _launch(logits, valid, labels, lengths, blank_id, count, save):
    rows, size, classes = logits.shape
    sizes = _sizes(logits, count)
    float32, int32 = (
        lambda *shape, dtype=dtype: jax.ShapeDtypeStruct(shape, dtype)
        for dtype in (jnp.float32, jnp.int32)
    )
    per_valid, per_label, per_length = (rows // len(array) for array in (valid, labels, lengths))

    config = configs.NORMALISE.choose(**sizes).config
    blocks = -(-size // config.block_frames)
    top, others, log_sums = launch.kernel_call(
        frames.normalise, logits, valid,
        out=(float32(rows, size),) * 3, grid=(rows * blocks,),
        num_warps=config.num_warps, num_stages=config.num_stages,
        T=size, K=classes, ROWS_PER_VALID=per_valid, BLOCKS=blocks, F=config.block_frames,
        BLOCK_K=config.block_classes,
    )  # fmt: skip

    config = _recursion(configs.ADVANCE, sizes)
    shares = float32(rows, size, count + 1) if save else float32(1)
    blank_mass, label_mass, order, counts, sums, states = launch.kernel_call(
        recursion.advance, logits, valid, labels, lengths, top, log_sums,
        out=(
            shares, shares, int32(rows, 2, size), int32(rows, 2), float32(rows, 2),
            int32(rows, 2, 8, count + 1),
        ),
        grid=(rows, 2), num_warps=config.num_warps, num_stages=config.num_stages,
        T=size, K=classes, N=count, BLANK=blank_id, ROWS_PER_VALID=per_valid,
        ROWS_PER_LABEL=per_label, ROWS_PER_LENGTH=per_length, SAVE=save, LEAST=_least(size),
        L=config.lanes, R=config.registers, D=config.frames,
    )  # fmt: skip
    columns = round_up(count + 1)
    loss, start = launch.kernel_call(
        recursion.meet, states, sums, lengths,
        out=(float32(rows), float32(rows, 2, 2, count + 1) if save else float32(1)),
        grid=(rows, 2 if save else 1), num_warps=max(1, min(8, columns // 32)), num_stages=1,
        N=count, ROWS_PER_LENGTH=per_length, SAVE=save, S=columns,
    )  # fmt: skip
    if not save:
        return (loss,)

    config = _recursion(configs.SPREAD, sizes)
    blank_mass, label_mass = launch.kernel_call(
        recursion.spread, blank_mass, label_mass, order, counts, start, labels, lengths,
        out=(shares, shares), aliases={0: 0, 1: 1}, grid=(rows, 2),
        num_warps=config.num_warps, num_stages=config.num_stages,
        T=size, N=count, ROWS_PER_LABEL=per_label, ROWS_PER_LENGTH=per_length,
        L=config.lanes, R=config.registers, D=config.frames,
    )  # fmt: skip
    block = max(1, min(16, _ELEMENTS // columns))
    blocks = -(-size // block)
    occupancy = launch.kernel_call(
        frames.finish, blank_mass, label_mass, valid, lengths,
        out=shares, aliases={1: 0}, grid=(rows * blocks,), num_warps=4, num_stages=1,
        T=size, N=count, ROWS_PER_VALID=per_valid, ROWS_PER_LENGTH=per_length, BLOCKS=blocks,
        F=block, COLUMNS=columns,
    )  # fmt: skip
    return loss, occupancy, top, others


def _recursion(tunable, sizes):
    """The configuration, which must have room for all pairs."""
    config, pairs = tunable.choose(**sizes).config, sizes["labels"] + 1
    if config.lanes * config.registers < pairs:
        raise ValueError(
            f"{tunable.name} needs lanes * registers >= {pairs} for {pairs - 1} labels; received "
            f"{config}. Take it out of the override or table that it is from."
        )
    return config


def _gradient(operands, saved, cotangents, wanted, *, blank_id):
    logits, _, labels, _ = operands
    assert wanted == (True, False, False, False)  # integers have no gradient
    if logits.size == 0:
        return (jnp.zeros_like(logits),)
    blank = jnp.full((labels.shape[0], 1), blank_id, labels.dtype)
    classes = jnp.concatenate([blank, labels], axis=1)

    def local(logits, classes, occupancy, top, others, cotangent):
        rows, size, count = logits.shape
        config = configs.GRADIENT.choose(**_sizes(logits, classes.shape[1] - 1)).config
        blocks = -(-size // config.block_frames)
        return launch.kernel_call(
            frames.softmax_less_occupancy,
            logits, classes, _links(classes), occupancy, top, others, cotangent,
            out=jax.ShapeDtypeStruct(logits.shape, logits.dtype), grid=(rows * blocks,),
            num_warps=config.num_warps, num_stages=config.num_stages,
            T=size, K=count, N=classes.shape[1] - 1, ROWS_PER_LABEL=rows // len(classes),
            BLOCKS=blocks, F=config.block_frames, BLOCK_K=config.block_classes,
            COLUMNS=round_up(classes.shape[1]),
        )  # fmt: skip

    rule = f"b t k, {launch.row_axis('l', classes, logits)} n, b t n, b t, b t, b -> b t k"
    arrays = (logits, classes, *saved, cotangents[0])
    return (launch.sharded(local, rule, *arrays, whole=_whole(rule, *arrays)),)


def _links(classes):
    """The next position of the same class, 0 for none; of all but the first, -1 minus that."""
    count = classes.shape[1]
    same = classes[:, :, None] == classes[:, None, :]
    position = jnp.arange(count, dtype=jnp.int32)
    later = same & (position[None, :] > position[:, None])[None]
    following = jnp.min(jnp.where(later, position[None, None, :], jnp.int32(count)), axis=2)
    following = jnp.where(following == count, jnp.int32(0), following)
    is_first = ~jnp.any(same & (position[None, :] < position[:, None])[None], axis=2)
    return jnp.where(is_first, following, -1 - following)


def _whole(rule, logits, *others):
    """The axes of a rule that are not cut: all but the rows of the logits, where these can be."""
    cut = set() if launch.shares_rows(logits, *others) else {"b"}
    return sorted(set(rule.replace(",", " ").replace("->", " ").split()) - cut)


def _least(size):
    """Base-2 exponents of probabilities below this are zero: a path's sum must fit an integer."""
    return -min(2**21, 2**29 // size)


def _sizes(logits, count):
    rows, size, classes = logits.shape
    return {
        "rows": rows, "frames": size, "classes": classes, "labels": count,
        "dtype": logits.dtype.name,
    }  # fmt: skip


def _refusal(logits, valid, labels, lengths, **_):
    del valid, lengths
    _, size, classes = logits.shape
    count = labels.shape[1]
    if logits.dtype == jnp.float64:
        return "its recursion is in float32, and float64 was given"
    if count > MOST_LABELS:
        return f"it holds at most {MOST_LABELS} labels, and {count} were given"
    if size * max(classes, count + 1) >= 2**31:
        return "it counts frames times classes, and frames times labels, in 32 bits"
    return None


def _tuning(logits, valid, labels, lengths, **_):
    del valid, lengths
    sizes = _sizes(logits, labels.shape[1])
    return Choices(tunable.choose(**sizes) for tunable in configs.TUNABLES)


ctc_loss = Implementation(_forward, _gradient, refusal=_refusal, tuning=_tuning, saving=_saving)
ctc_occupancy = Implementation(_occupancy, refusal=_refusal, tuning=_tuning)


_INTEGERS = ("valid", "labels", "lengths", "order", "counts", "states", "classes", "links")
# Rows, frames, classes, labels: a warp without a barrier, many classes, and the longest labels.
_SHAPES = {
    name: dict(zip(("rows", "frames", "classes", "labels"), sizes, strict=True))
    for name, sizes in {
        "short": (32, 400, 32, 31),
        "words": (16, 1000, 32, 200),
        "pieces": (4, 2000, 5000, 150),
        "longest": (2, 4000, 1000, MOST_LABELS),
    }.items()
}


_RECURSION, _FRAMES = (configs.ADVANCE, configs.SPREAD), (configs.NORMALISE, configs.GRADIENT)
_COMPILED = (
    [(tunable, name, "float32") for name in ("short", "words", "longest") for tunable in _RECURSION]
    + [(tunable, name, "float32") for name in ("words", "pieces") for tunable in _FRAMES]
    + [(tunable, "pieces", "bfloat16") for tunable in (configs.ADVANCE, *_FRAMES)]
)


def compiled_variants(arch: str) -> Iterator[Variant]:
    """What the static report compiles: by the heuristic, and each configuration in a table."""
    listed = (
        Listed(tunable, {"dtype": dtype, **_SHAPES[name]}, f"{name}/{dtype}")
        for tunable, name, dtype in _COMPILED
    )
    return variants(arch, listed, configs.TUNABLES, variant)


def variant(tunable: Tunable, sizes: Mapping[str, Any], config: Any, label: str) -> Variant:
    """A launch for these sizes, each row with labels and lengths of its own."""
    rows, size, classes, count = (sizes[k] for k in ("rows", "frames", "classes", "labels"))
    everything = rows * size * classes * jnp.dtype(sizes["dtype"]).itemsize
    columns = rows * size * (count + 1) * 4
    constants = {
        "T": size, "K": classes, "N": count, "BLANK": 0, "ROWS_PER_VALID": 1, "ROWS_PER_LABEL": 1,
        "ROWS_PER_LENGTH": 1, "SAVE": True, "LEAST": _least(size), "COLUMNS": round_up(count + 1),
    }  # fmt: skip
    if isinstance(config, configs.RecursionConfig):
        constants |= {"L": config.lanes, "R": config.registers, "D": config.frames}
    else:
        blocks = -(-size // config.block_frames)
        constants |= {"F": config.block_frames, "BLOCK_K": config.block_classes, "BLOCKS": blocks}
    # Of the logits the recursion reads a column for each label, of at most all classes.
    kernel, moved, flops = {
        configs.NORMALISE.name: (frames.normalise, everything, 3 * rows * size * classes),
        configs.ADVANCE.name: (
            recursion.advance, min(everything, columns) + 2 * columns, 6 * columns,
        ),
        configs.SPREAD.name: (recursion.spread, 4 * columns, 2 * columns),
        configs.GRADIENT.name: (
            frames.softmax_less_occupancy, 2 * everything + columns, 5 * rows * size * classes,
        ),
    }[tunable.name]  # fmt: skip
    names = kernel.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    pointers = {name: "*i32" if name in _INTEGERS else "*fp32" for name in names}
    pointers |= dict.fromkeys(("logits", "out"), POINTER[sizes["dtype"]])
    signature = {name: pointers[name] for name in names if name not in constants}
    return Variant(f"{tunable.name}/{label}", kernel, signature, constants, config, moved, flops)
