"""What there is to choose in a log-mel front end, as one value; `log_mel` computes it.

`research.speech.presets` names the choices of well-known toolkits.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import scipy.signal
from jaxtyping import Float

from research.errors import ConfigError
from research.speech.mel import MelScale, triangular_filters

WindowKind = Literal[
    "hann_periodic", "hann_symmetric", "hamming_periodic", "hamming_symmetric", "povey"
]
Edges = Literal["snip", "extend", "zero", "reflect", "mirror"]


@dataclass(frozen=True)
class UtteranceNorm:
    """Each bin of each utterance gets zero mean and unit deviation over its valid frames.

    Attributes:
        ddof: the variance is a sum of squares over frames - ddof.
        epsilon: keeps a constant bin finite.
        epsilon_on: x / sqrt(variance + epsilon), or x / (deviation + epsilon).
    """

    ddof: Literal[0, 1] = 0
    epsilon: float = 1e-5
    epsilon_on: Literal["variance", "deviation"] = "variance"

    def __post_init__(self) -> None:
        """Check that a constant bin stays finite."""
        if not self.epsilon > 0:
            raise ConfigError(f"UtteranceNorm needs epsilon > 0, but got {self.epsilon:g}")


@dataclass(frozen=True)
class FixedNorm:
    """(x - mean) / scale with constants: one of each, or one a bin."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that there is something to divide by."""
        if not self.mean or len(self.mean) != len(self.scale) or min(self.scale) <= 0:
            raise ConfigError(
                "FixedNorm needs as many means as scales, and scales > 0, but got "
                f"{len(self.mean)} and {len(self.scale)}, the smallest {min(self.scale, default=0)}"
            )


@dataclass(frozen=True)
class LogMel:
    """Settings of `log_mel`, in the order in which they apply.

    Attributes:
        sample_rate: samples per second of the waveforms.
        n_fft: length of the Fourier transform; frames are padded to it with zeros.
        window: samples of a frame (25 ms at 8 kHz).
        hop: samples between the starts of two frames (10 ms at 8 kHz).
        n_mels: mel bins F.
        low_hz: where the lowest filter starts.
        high_hz: where the highest filter ends; None means half the sample rate.
        floor: keeps the logarithm finite, see `floor_kind`.
        scale: waveforms are multiplied by it; 2^15 for tools that count in 16-bit steps.
        edges: which frames there are, and what lies outside of the n samples of an utterance.
            "snip": frames within it, 1 + (n - window) // hop of them.
            "extend": zeros after it, a frame at each hop that starts in it, ceil(n / hop).
            "zero": frame t is centred at sample t hop, zeros around, 1 + n // hop.
            "reflect": the same with samples mirrored about the first and the last one.
            "mirror": frame t is centred at (t + 1/2) hop, samples mirrored with the first and the
            last one doubled, n / hop rounded: Kaldi's snip_edges=false.
        drop_last: one frame fewer, with "zero" and "reflect": n // hop.
        pre_emphasis: a in x[s] - a x[s - 1].
        pre_emphasis_on: the "signal", with nothing before its first sample; or each "frame", whose
            first sample is its own predecessor.
        remove_dc: subtract the mean from each frame, before its pre-emphasis.
        window_kind: what frames are weighted with. Povey's is a symmetric Hann to the power 0.85.
        power: 2 for the squared magnitude of the spectrum, 1 for the magnitude.
        mel_scale: see `research.speech.mel`.
        mel_norm: "slaney" gives filters equal area, "none" equal height.
        floor_kind: log(x + floor), or log(max(x, floor)) with "clamp".
        log: natural, to base 10, or in decibels (10 log10).
        dynamic_range: values more than this below the largest of an utterance are lifted to it.
        norm: what the logarithms are centred and divided by, None for nothing.
    """

    sample_rate: int = 8000
    n_fft: int = 256
    window: int = 200
    hop: int = 80
    n_mels: int = 40
    low_hz: float = 20.0
    high_hz: float | None = None
    floor: float = 1e-6
    scale: float = 1.0
    edges: Edges = "snip"
    drop_last: bool = False
    pre_emphasis: float = 0.0
    pre_emphasis_on: Literal["signal", "frame"] = "signal"
    remove_dc: bool = False
    window_kind: WindowKind = "hann_periodic"
    power: Literal[1, 2] = 2
    mel_scale: MelScale = "htk"
    mel_norm: Literal["none", "slaney"] = "none"
    floor_kind: Literal["add", "clamp"] = "add"
    log: Literal["natural", "log10", "decibel"] = "natural"
    dynamic_range: float | None = None
    norm: UtteranceNorm | FixedNorm | None = None

    def __post_init__(self) -> None:
        """Check that the settings describe a transform."""
        if min(self.sample_rate, self.hop, self.n_mels) < 1 or not 1 <= self.window <= self.n_fft:
            raise ConfigError(
                "LogMel needs sample_rate, hop and n_mels >= 1 and 1 <= window <= n_fft, but got "
                f"{self.sample_rate}, {self.hop}, {self.n_mels}, {self.window} and {self.n_fft}"
            )
        if not 0 <= self.low_hz < self.top_hz <= self.sample_rate / 2:
            raise ConfigError(
                f"LogMel needs 0 <= low_hz < high_hz <= {self.sample_rate / 2:g}, but got "
                f"{self.low_hz:g} and {self.top_hz:g}"
            )
        if not self.floor > 0:
            raise ConfigError(f"LogMel needs floor > 0, but got {self.floor:g}")
        if not self.scale > 0 or not 0 <= self.pre_emphasis < 1:
            raise ConfigError(
                "LogMel needs scale > 0 and 0 <= pre_emphasis < 1, but got "
                f"{self.scale:g} and {self.pre_emphasis:g}"
            )
        if self.dynamic_range is not None and not self.dynamic_range > 0:
            raise ConfigError(
                f"LogMel needs dynamic_range > 0 or None, but got {self.dynamic_range:g}"
            )
        self._check_choices()
        if isinstance(self.norm, FixedNorm) and len(self.norm.mean) not in (1, self.n_mels):
            raise ConfigError(
                f"FixedNorm needs 1 mean or one for each of {self.n_mels} mel bins, but has "
                f"{len(self.norm.mean)}"
            )
        empty = np.flatnonzero(mel_filters(self).sum(axis=0) == 0)
        if empty.size:
            raise ConfigError(
                f"every mel filter must cover a frequency bin, but {empty.size} of {self.n_mels} "
                f"(first: {empty[0]}) cover none; use fewer n_mels or a longer n_fft"
            )

    def _check_choices(self) -> None:
        for name, annotation in type(self).__annotations__.items():
            choices = get_args(annotation)
            plain = [choice for choice in choices if isinstance(choice, (str, int))]
            if plain and getattr(self, name) not in plain:
                raise ConfigError(
                    f"LogMel needs {name} to be one of {', '.join(map(str, plain))}, but got "
                    f"{getattr(self, name)!r}"
                )
        if self.drop_last and self.edges not in ("zero", "reflect"):
            raise ConfigError(
                "LogMel drops a last frame only where frames are centred, with edges 'zero' or "
                f"'reflect', but got {self.edges!r}"
            )

    @property
    def top_hz(self) -> float:
        """Where the highest filter ends, in Hz."""
        return self.sample_rate / 2 if self.high_hz is None else self.high_hz

    @property
    def hop_seconds(self) -> float:
        """Seconds between the starts of two frames."""
        return self.hop / self.sample_rate

    @property
    def lead(self) -> int:
        """Samples of frame 0 that lie before the first sample of the utterance."""
        if self.edges == "mirror":
            return self.window // 2 - self.hop // 2
        if self.edges in ("zero", "reflect"):
            # The window lies in the middle of the n_fft samples that are centred.
            return self.n_fft // 2 - (self.n_fft - self.window) // 2
        return 0

    def frames(self, samples):
        """How many frames an utterance has, by the rule of `edges`; 0 of no samples.

        Args:
            samples: a number of samples, or an integer array of them.

        Returns:
            The same type and shape.

        Example:
            >>> LogMel().frames(4000), LogMel(edges="zero").frames(4000)
            (48, 51)
        """
        if self.edges == "snip":
            count = 1 + (samples - self.window) // self.hop
        elif self.edges == "extend":
            count = -(-samples // self.hop)
        elif self.edges == "mirror":
            count = (samples + self.hop // 2) // self.hop
        else:
            count = samples // self.hop + (not self.drop_last)
        return count * (count > 0) * (samples > 0)


def window_weights(config: LogMel) -> Float[np.ndarray, " W"]:
    """What the samples of a frame are multiplied by.

    Args:
        config: the settings.

    Returns:
        Weights, float64, shape (window,).

    Example:
        >>> window_weights(LogMel(window=4, n_fft=512, window_kind="hann_periodic")).round(
        ...     3
        ... ).tolist()
        [0.0, 0.5, 1.0, 0.5]
    """
    kind, _, sides = config.window_kind.partition("_")
    periodic = sides == "periodic"
    shape = "hann" if kind == "povey" else kind
    weights = np.asarray(scipy.signal.get_window(shape, config.window, fftbins=periodic))
    return weights**0.85 if kind == "povey" else weights


@lru_cache(maxsize=32)
def mel_filters(config: LogMel) -> Float[np.ndarray, "K F"]:
    """The filters of these settings, see `research.speech.mel.triangular_filters`.

    Args:
        config: the settings.

    Returns:
        Weights, float64, shape (n_fft // 2 + 1, n_mels); read-only.

    Example:
        >>> mel_filters(LogMel()).shape
        (129, 40)
    """
    filters = triangular_filters(
        config.sample_rate,
        config.n_fft,
        config.n_mels,
        config.low_hz,
        config.top_hz,
        config.mel_scale,
        config.mel_norm,
    )
    filters.flags.writeable = False  # the cache hands out this very array
    return filters
