"""MNIST-1D: ten templates of 12 values, deformed and drowned in noise into sequences of 40.

Small enough to compute: the same draws in the same order as the author's program, which is what
the published file holds.

Source: Greydanus & Kobak, "Scaling Down Deep Learning with MNIST-1D", ICML 2024 (first version
2020), https://github.com/greydanus/mnist1d.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32
from scipy.ndimage import gaussian_filter1d

SOURCE = "MNIST-1D (Greydanus & Kobak): 4,000 training and 1,000 test sequences, computed here"

_SEED = 42
_SEQUENCES = 5000
_TRAINING = 4000
_LENGTH = 40
_PADDING = (36, 60)
_LONGEST = 12 + _PADDING[1]  # what every template is stretched to
_SCALE = 0.4
_LARGEST_SHIFT = 48
_CORRELATED_NOISE, _SMOOTHING = 0.25, 2
_NOISE = 2e-2
_SHEAR = 0.75
_OFFSET = 1e-8  # tells the template's zeros from the padding's
_DECIMALS = 4  # kept, so that the bits depend on no machine's rounding

# One row for each digit: the height of a pen that writes it from top to bottom.
_TEMPLATES = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)


class Sequences(NamedTuple):
    """Sequences and the digit of each."""

    values: Float32[np.ndarray, "N 40"]
    digits: Int32[np.ndarray, " N"]


def load_mnist1d() -> tuple[Sequences, Sequences]:
    """The published training and test sequences, to four decimals.

    A template is padded with 36 to 60 zeros, stretched to 72 values, scaled by 0.8 to 1.2 and
    shifted by up to 47; zeros become smoothed noise of deviation 0.25, noise of 0.02 comes on top;
    a ramp of up to 0.375 is taken away, and 40 values are read off. All are normalised together.

    Returns:
        Training and test sequences, in the author's order, which is random.

    Example:
        >>> train, test = load_mnist1d()
        >>> train.values.shape, test.values.shape
        ((4000, 40), (1000, 40))
    """
    draw = np.random.RandomState(_SEED)
    digits = np.repeat(np.arange(10, dtype=np.int32), _SEQUENCES // 10)
    templates = _whitened()
    clean = np.empty((_SEQUENCES, _LONGEST))
    correlated, noise = np.empty_like(clean), np.empty_like(clean)
    shear = np.empty((_SEQUENCES, 1))
    for row, digit in enumerate(digits):
        low, high = _PADDING
        zeros = np.zeros(low + int(draw.rand() * (high - low + 1)))
        stretched = _resampled(np.concatenate([templates[digit] + _OFFSET, zeros]), _LONGEST)
        stretched *= 1 + _SCALE * (draw.rand() - 0.5)
        shift = draw.choice(_LARGEST_SHIFT)
        clean[row] = np.roll(stretched, shift)
        correlated[row] = _CORRELATED_NOISE * draw.randn(_LONGEST)
        noise[row] = _NOISE * draw.randn(_LONGEST)
        shear[row] = _SHEAR * (draw.rand() - 0.5)
    correlated = gaussian_filter1d(correlated, _SMOOTHING, axis=1)
    whole = np.where(clean != 0, clean, correlated) + noise
    whole -= shear * np.linspace(-0.5, 0.5, _LONGEST)
    values = np.stack([_resampled(sequence, _LENGTH) for sequence in whole])
    order = draw.permutation(_SEQUENCES)
    values, digits = values[order], digits[order]
    values = np.round((values - values.mean()) / values.std(), _DECIMALS).astype(np.float32)
    return (
        Sequences(values[:_TRAINING], digits[:_TRAINING]),
        Sequences(values[_TRAINING:], digits[_TRAINING:]),
    )


def _whitened() -> np.ndarray:
    whitened = _TEMPLATES - _TEMPLATES.mean(axis=1, keepdims=True)
    whitened /= whitened.std(axis=1, keepdims=True)
    return (whitened - whitened[:, :1]) / 6.0


def _resampled(values: np.ndarray, count: int) -> np.ndarray:
    """Linear interpolation at equal distances, both ends included."""
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(values)), values)
