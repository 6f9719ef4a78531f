"""What workloads there are: a module of this package that builds each, and its options."""

from collections.abc import Mapping
from typing import Any, NamedTuple

POOL_SEED = 20_061_112
"""Seed of the trials that set the targets, and the first of their seeds; for nothing else."""


class Entry(NamedTuple):
    """``research.workloads.<module>.build(name, data_dir, **options)`` gives the workload."""

    module: str
    options: Mapping[str, Any] = {}


_ORIGINALS: Mapping[str, Entry] = {
    "quadratic_1e2": Entry("quadratics", {"condition": 1e2, "steps": 200}),
    "quadratic_1e4": Entry("quadratics", {"condition": 1e4, "steps": 1000}),
    "heavy_tailed": Entry("heavy_tailed"),
    "digits_mlp": Entry("digits_mlp"),
    "fashion_lenet": Entry("fashion_lenet"),
    "gru": Entry("gru"),
    "char_lm": Entry("char_lm"),
    "vit": Entry("vit"),
    "autoencoder": Entry("autoencoder"),
    "digit_strings_ctc": Entry("digit_strings_ctc"),
}


class _Variant(NamedTuple):
    of: str
    change: str
    options: Mapping[str, Any]


_VARIANTS: Mapping[str, _Variant] = {
    "quadratic_1e3": _Variant(
        "quadratic_1e2", "condition number 1e3, 500 steps", {"condition": 1e3, "steps": 500}
    ),
    "digits_mlp_wide": _Variant("digits_mlp", "width 512 for 128", {"widths": (512, 512)}),
    "digits_mlp_tanh": _Variant("digits_mlp", "tanh for ReLU", {"activation": "tanh"}),
    "digits_mlp_norm": _Variant("digits_mlp", "layer norm before each ReLU", {"norm": "layer"}),
    "fashion_lenet_tanh": _Variant("fashion_lenet", "tanh for ReLU", {"activation": "tanh"}),
    "fashion_lenet_norm": _Variant(
        "fashion_lenet", "group norm before each ReLU", {"norm": "group"}
    ),
    "fashion_lenet_augmented": _Variant(
        "fashion_lenet", "images mirrored and moved at random", {"augmented": True}
    ),
    "gru_wide": _Variant("gru", "width 64 for 32", {"width": 64}),
    "char_lm_rms": _Variant("char_lm", "RMS norm for layer norm", {"norm": "rms"}),
    "char_lm_wide": _Variant("char_lm", "width 96 for 48", {"width": 96}),
    "vit_relu": _Variant("vit", "ReLU for GELU", {"activation": "relu"}),
    "vit_rms": _Variant("vit", "RMS norm for layer norm", {"norm": "rms"}),
    "autoencoder_tanh": _Variant("autoencoder", "tanh for sigmoid", {"activation": "tanh"}),
    "digit_strings_ctc_wide": _Variant("digit_strings_ctc", "width 96 for 64", {"width": 96}),
}


def _of(variant: _Variant) -> Entry:
    entry = _ORIGINALS[variant.of]
    return entry._replace(options={**entry.options, **variant.options})


ENTRIES: Mapping[str, Entry] = {
    **_ORIGINALS,
    **{name: _of(variant) for name, variant in _VARIANTS.items()},
}

BASES: Mapping[str, str] = {name: variant.of for name, variant in _VARIANTS.items()}
"""Held-out workload -> the original that it varies."""

VARIANTS: Mapping[str, str] = {
    name: f"{variant.of} with {variant.change}" for name, variant in _VARIANTS.items()
}
"""Held-out workload -> what it is, in words: an original with one change."""
