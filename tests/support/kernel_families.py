"""What the test matrix must know of each operation: shapes, and what must not count."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from kernels import problems
from kernels.attention.tuning import Shape as Attention
from kernels.convolution.conformer.tuning import Shape as Conformer
from kernels.convolution.dense2d.tuning import Shape as Images
from kernels.convolution.depthwise1d.tuning import Shape as Convolution
from kernels.convolution.depthwise2d.tuning import Shape as DepthwiseImages
from kernels.ctc.tuning import Shape as Ctc


@dataclass(frozen=True)
class Family:
    """What the matrix must know of an operation.

    Attributes:
        cut: name in ``tuning.SHAPES`` -> the fields that let the interpreter afford it.
        awkward: sizes at which tiles, blocks and rows end unevenly.
        low: names of those that run in every precision; all run in float32.
        long: names of shapes that are left to the long tests on a CPU.
        small: a shape with every operand, for what costs most to compile or to run.
        sharded: a shape with rows for 8 devices.
        ignored: problem -> masks of elements that must not count, by operand and for "output".
        fitting: what tests/kernels/test_matrix.py does to an operand -> operands that may be so.
        results: dtype of the value, where it is not that of the operands.
        rests_on: the operation that this one prepares operands for, or is made of or like. How JAX
            transforms both is decided there, so what costs most here is left to the long tests.
    """

    cut: Mapping[str, Mapping[str, Any]]
    awkward: Mapping[str, Any]
    low: tuple[str, ...]
    small: Any
    sharded: Any
    ignored: Callable[[problems.Problem], Mapping[str, np.ndarray]] = field(default=lambda _: {})
    fitting: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    results: str | None = None
    rests_on: str | None = None
    long: tuple[str, ...] = ()


def _frames_past_the_end(problem: problems.Problem) -> dict[str, np.ndarray]:
    """Of an operation on (B, T, C) with lengths, and of what it gives: (B, U, C)."""
    inputs, lengths = problem.operands["inputs"], np.asarray(problem.operands["lengths"])
    result = jax.eval_shape(problem.plain(), *problem.arguments)
    masks = {}
    for name, shape in (("inputs", inputs.shape), ("output", result.shape)):
        valid = lengths + shape[1] - inputs.shape[1]
        past = np.arange(shape[1])[None, :] >= valid[:, None]
        masks[name] = np.broadcast_to(past[:, :, None], shape)
    return masks


def _padded_frames(problem: problems.Problem) -> dict[str, np.ndarray]:
    """Of an operation on logits (B, T, K) with paddings (B, T)."""
    padded = np.asarray(problem.operands["logit_paddings"], bool)
    return {"logits": np.broadcast_to(padded[:, :, None], problem.operands["logits"].shape)}


def _rows_past_the_end(problem: problems.Problem) -> dict[str, np.ndarray]:
    """Of attention to (B, S, K, H) from (B, T, N, H), with lengths of both."""
    operands = problem.operands
    masks = {}
    for names, lengths in (
        (("query", "output"), "query_seq_lengths"),
        (("key", "value"), "key_value_seq_lengths"),
    ):
        for name in names:
            shape = operands["query" if name == "output" else name].shape
            past = np.arange(shape[1])[None, :] >= np.asarray(operands[lengths])[:, None]
            masks[name] = np.broadcast_to(past[:, :, None, None], shape)
    return masks


# Of those named in kernels.attention.tuning: a few tiles of the interpreter, unevenly filled.
_ATTENTION_CUT = {
    "long_64": {"queries": 17, "heads": 2, "width": 16},
    "long_64_causal": {"queries": 35, "heads": 1, "width": 16},
    "long_128": {"queries": 5, "heads": 1, "width": 128},
    "long_128_causal": {"queries": 18, "heads": 1, "width": 128},
    "pairs_2048": {"batch": 2, "queries": 19, "heads": 2},
    "pairs_512": {"batch": 2, "queries": 9, "heads": 2},
    "decode_4096": {"batch": 2, "heads": 4, "key_heads": 1, "width": 16, "keys": 37},
    "grouped_2048": {"batch": 1, "queries": 21, "heads": 4, "key_heads": 2, "width": 8},
    "capped_256": {"batch": 1, "queries": 7, "heads": 2, "key_heads": 1},
    "window_1024": {"queries": 40, "heads": 2, "key_heads": 1, "width": 8, "window": (7, 0)},
    "packed_64": {"batch": 2, "queries": 33, "heads": 1, "width": 16, "segments": 3},
    "distance_1024": {"batch": 1, "queries": 18, "heads": 3, "width": 8},
    "vit_197": {"batch": 1, "queries": 13, "heads": 3, "width": 8},
    "vit_257_80": {"batch": 1, "queries": 17, "heads": 1},
    "cross_96": {"batch": 1, "queries": 5, "heads": 1, "keys": 11},
    "wav2vec2_999": {"batch": 2, "queries": 23, "heads": 1, "width": 8},
    "tiny_64": {"queries": 6, "heads": 1, "width": 8},
    "tiny_vit_197": {"batch": 1, "queries": 4, "heads": 1, "width": 8},
    "tiny_bias_32": {"queries": 5, "heads": 1, "width": 8},
}
_RELATIVE_CUT = {
    "conformer_250": {"batch": 2, "queries": 21, "heads": 2, "width": 8},
    "parakeet_250": {"batch": 2, "queries": 5, "heads": 1},
    "conformer_500": {"batch": 2, "queries": 36, "heads": 1, "width": 8},
    "transformer_xl_1024": {"batch": 1, "queries": 17, "heads": 2, "width": 8},
    "tiny_conformer_100": {"queries": 4, "heads": 1, "width": 8},
}
_CONV_CUT = {
    "primer_512_w3": {"batch": 1, "queries": 9, "heads": 2, "width": 8},
    "centred_250_w9": {"batch": 2, "queries": 11, "heads": 2, "width": 8},
    "tiny_primer_128_w3": {"batch": 1, "queries": 3, "heads": 1, "width": 8},
}
_PATCHES = {"taps": (4, 4), "strides": (4, 4)}
# A bias or mask without its first axis serves all rows.
_BROADCAST = {"one axis less": ("bias", "mask")}

FAMILIES = {
    "depthwise_conv1d": Family(
        # 16 channels are a block, and 4 times 16 frames.
        cut={
            "causal_w4": {"batch": 2, "frames": 67, "channels": 17, "lengths": True},
            "conformer_w31": {"batch": 1, "frames": 37, "channels": 5},
            "parakeet_w9": {"batch": 3, "frames": 65, "channels": 3, "lengths": True},
            "wav2vec2_bert_w31": {"batch": 2, "frames": 13, "channels": 3, "width": 11},
            "separable_w7": {"batch": 2, "frames": 64, "channels": 16},
            "wide_w128": {"batch": 1, "frames": 17, "channels": 2, "width": 24},
            "dilated_w3": {"batch": 2, "frames": 131, "channels": 2, "lengths": True},
        },
        awkward={
            "one": Convolution(1, 1, 1, 1),
            "one_frame": Convolution(2, 1, 3, 3, activation="gelu"),
            "shorter_than_the_filter": Convolution(3, 5, 2, 8, activation="relu", lengths=True),
            "prime": Convolution(2, 17, 33, 4, 3, "CAUSAL", "silu", lengths=True),
            "valid": Convolution(2, 65, 3, 5, 2, "VALID", lengths=True),
            "uneven": Convolution(2, 63, 3, 2, 1, (5, 0), "gelu", lengths=True),
        },
        low=("prime",),
        small=Convolution(2, 7, 3, 3, 2, "SAME", "silu", lengths=True),
        sharded=Convolution(16, 9, 3, 4, activation="silu", lengths=True),
        ignored=_frames_past_the_end,
    ),
    "conv2d": Family(
        # Blocks have 16 results, features, and taps and channels, or more.
        cut={
            "residual_14": {"batch": 2, "height": 5, "width": 4, "channels": 32, "features": 17},
            "residual_56": {"batch": 1, "height": 6, "width": 7, "channels": 5, "features": 3},
            "pointwise_56": {"batch": 2, "height": 3, "width": 5, "channels": 33, "features": 18},
            "halving_56": {"batch": 1, "height": 7, "width": 6, "channels": 32, "features": 5},
            "patches_16": {"batch": 2, "height": 8, "width": 8, "features": 9, **_PATCHES},
            "speech_first": {"batch": 1, "height": 10, "width": 9, "features": 6},
            "speech_second": {"batch": 1, "height": 8, "width": 5, "channels": 3, "features": 4},
            "tiny_lenet_1": {"batch": 1, "height": 6, "width": 7},
            "tiny_lenet_6": {"batch": 1, "height": 6, "width": 8, "features": 5},
            "tiny_residual_14": {"batch": 1, "height": 3, "width": 3, "channels": 2, "features": 3},
            "tiny_halving_28": {"batch": 1, "height": 4, "width": 5, "channels": 3, "features": 2},
        },
        long=(
            "residual_56",
            "pointwise_56",
            "speech_first",
            "speech_second",
            "tiny_lenet_1",
            "tiny_lenet_6",
            "tiny_residual_14",
            "tiny_halving_28",
        ),
        awkward={
            "one": Images(1, 1, 1, 1, 1, (1, 1)),
            "cut_off": Images(2, 9, 8, 3, 5, (3, 2), (2, 3), ((-1, 2), (0, -1)), (2, 1), "silu"),
        },
        low=("cut_off",),
        small=Images(2, 4, 5, 2, 3, (2, 3), (2, 1), activation="silu"),
        sharded=Images(16, 4, 4, 3, 5, activation="silu"),
    ),
    "depthwise_conv2d": Family(
        # 16 channels are a block, and four rows of tiles with 16 pixels in all.
        cut={
            "convnext_7x7": {"batch": 1, "height": 9, "width": 5, "channels": 17},
            "convnext_last_7x7": {"batch": 2, "height": 4, "width": 3, "channels": 3},
            "mobilenet_3x3": {"batch": 2, "height": 5, "width": 9, "channels": 3},
            "mobilenet_3x3_stride_2": {"batch": 2, "height": 10, "width": 7, "channels": 3},
            "efficientnet_5x5": {"batch": 1, "height": 7, "width": 5, "channels": 3},
            "efficientnet_5x5_stride_2": {"batch": 1, "height": 9, "width": 5, "channels": 3},
            "tiny_3x3": {"batch": 1, "height": 4, "width": 5, "channels": 16},
            "tiny_3x3_stride_2": {"batch": 1, "height": 5, "width": 4, "channels": 2},
            "tiny_7x7": {"batch": 1, "height": 3, "width": 2, "channels": 2},
        },
        long=(
            "convnext_7x7",
            "convnext_last_7x7",
            "mobilenet_3x3",
            "efficientnet_5x5",
            "efficientnet_5x5_stride_2",
            "tiny_3x3",
            "tiny_3x3_stride_2",
            "tiny_7x7",
        ),
        awkward={
            "one": DepthwiseImages(1, 1, 1, 1, (1, 1)),
            "prime": DepthwiseImages(2, 7, 5, 3, (3, 2), (1, 2), activation="silu"),
            "apart": DepthwiseImages(
                1, 9, 8, 17, (3, 2), (2, 3), ((-1, 2), (3, 1)), (3, 2), activation="gelu"
            ),
        },
        low=("prime",),
        small=DepthwiseImages(2, 4, 3, 2, (2, 3), (2, 1), activation="silu"),
        sharded=DepthwiseImages(16, 4, 3, 2, (3, 2), activation="silu"),
        rests_on="depthwise_conv1d",
    ),
    "conformer_convolution": Family(
        # 16 channels are a tile; 4 times 8 frames, or with fewer frames fewer.
        cut={
            "conformer_l_500": {"batch": 1, "frames": 37, "channels": 5, "width": 6},
            "parakeet_250": {"batch": 3, "frames": 9, "channels": 17, "width": 4, "lengths": True},
            "conformer_s_500": {"batch": 1, "frames": 33, "channels": 16, "lengths": True},
            "chunk_16": {"batch": 2, "frames": 5, "channels": 3, "width": 4, "lengths": True},
            "tiny_50": {"batch": 1, "frames": 3, "channels": 2, "bias": False},
        },
        awkward={
            "one": Conformer(1, 1, 1, 1),
            "prime": Conformer(2, 17, 7, 2, padding=(5, 0), lengths=True),
            "given": Conformer(2, 7, 3, 2, "batch_inference", "CAUSAL", state=True),
        },
        low=("prime",),
        small=Conformer(2, 5, 3, 3, lengths=True),
        sharded=Conformer(16, 9, 4, 3, lengths=True),
        ignored=_frames_past_the_end,
        rests_on="depthwise_conv1d",
        long=("tiny_50", "conformer_s_500", "conformer_l_500", "chunk_16", "one", "given"),
    ),
    "ctc_loss": Family(
        # Segments have 16 frames in XLA; in Triton both halves meet in the middle.
        cut={
            "characters_200": {
                "batch": 2,
                "frames": 17,
                "classes": 5,
                "labels": 6,
                "lengths": True,
            },
            "characters_400": {"batch": 1, "frames": 33, "classes": 6, "labels": 12},
            "characters_1000": {"batch": 1, "frames": 7, "classes": 3, "labels": 3},
            "pieces_1000": {"batch": 2, "frames": 8, "classes": 67, "labels": 2, "lengths": True},
            "pieces_5000": {"batch": 1, "frames": 5, "classes": 300, "labels": 2},
            "pieces_500": {"batch": 3, "frames": 6, "classes": 33, "labels": 1},
            "long_8000": {"batch": 1, "frames": 70, "classes": 3, "labels": 31},
        },
        awkward={
            "one": Ctc(1, 1, 2, 1),
            "nothing_said": Ctc(2, 3, 4, 0),
            "only_the_blank": Ctc(2, 4, 1, 0),
            "sixteen": Ctc(2, 16, 7, 4, lengths=True),
            # With no more classes than labels the emissions are found in another way.
            "two_classes": Ctc(2, 17, 2, 6, lengths=True),
        },
        low=("sixteen", "two_classes"),
        small=Ctc(2, 5, 4, 2, lengths=True),
        sharded=Ctc(8, 4, 5, 2, lengths=True),
        ignored=_padded_frames,
        fitting={
            "of another kind": ("logit_paddings", "label_paddings"),
            "longer": ("logits",),  # one class more
        },
        results="float32",
    ),
    "attention": Family(
        cut=_ATTENTION_CUT,
        long=(
            "long_64",
            "long_128",
            "long_128_causal",
            "pairs_2048",
            "pairs_512",
            "decode_4096",
            "grouped_2048",
            "cross_96",
            "capped_256",
            "distance_1024",
            "vit_197",
            "vit_257_80",
            "wav2vec2_999",
            "tiny_64",
            "tiny_vit_197",
            "tiny_bias_32",
        ),
        awkward={
            "one_query": Attention(1, 1, 2, 5, keys=2),
            "prime": Attention(2, 17, 2, 7, key_heads=1, bias="bts", mask="ts", lengths=True),
            "between": Attention(1, 33, 1, 3, keys=31, window=(2, 3), bias="s", soft_cap=2.0),
            "wide": Attention(1, 3, 1, 65, keys=65, causal=True, by_distance=True),
        },
        low=("prime",),
        small=Attention(
            2,
            5,
            4,
            3,
            keys=6,
            key_heads=2,
            bias="bns",
            mask="bts",
            lengths=True,
            segments=2,
            window=(3, 2),
            soft_cap=3.0,
            by_distance=True,
            dropout=0.25,
        ),
        sharded=Attention(16, 9, 4, 8, key_heads=2, bias="nts", mask="bs", causal=True),
        ignored=_rows_past_the_end,
        fitting=_BROADCAST,
    ),
    "relative_attention": Family(
        cut=_RELATIVE_CUT,
        long=("parakeet_250", "conformer_500", "transformer_xl_1024", "tiny_conformer_100"),
        awkward={
            "one_query": Attention(1, 1, 2, 5, keys=2, relative=True),
            "prime": Attention(2, 17, 2, 7, mask="bt", lengths=True, relative=True),
            "longer_keys": Attention(1, 5, 2, 3, keys=33, key_heads=1, relative=True),
        },
        low=("prime",),
        small=Attention(2, 5, 2, 3, mask="ts", lengths=True, causal=True, relative=True),
        sharded=Attention(16, 9, 4, 8, lengths=True, relative=True),
        ignored=_rows_past_the_end,
        fitting=_BROADCAST,
        rests_on="attention",
    ),
    "conv_attention": Family(
        cut=_CONV_CUT,
        long=("primer_512_w3", "tiny_primer_128_w3"),
        awkward={
            "one_query": Attention(1, 1, 2, 5, keys=2, taps=1),
            "prime": Attention(2, 7, 2, 5, keys=13, key_heads=1, lengths=True, taps=4),
        },
        low=("prime",),
        small=Attention(2, 5, 2, 3, keys=4, bias="ns", mask="ts", lengths=True, taps=3),
        sharded=Attention(16, 9, 4, 8, causal=True, taps=3),
        ignored=_rows_past_the_end,
        fitting=_BROADCAST,
        rests_on="attention",
    ),
}
