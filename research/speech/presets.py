"""The log-mel features of well-known toolkits as settings, by name.

Each is what the toolkit computes by default; `dataclasses.replace` gives its variants, such as
128 mel bins for newer Whisper models. What they were checked against is in the README here.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from research.names import look_up
from research.speech.librispeech_statistics import DEVIATIONS, MEANS
from research.speech.log_mel_config import FixedNorm, LogMel, UtteranceNorm

_FLOAT32_EPSILON = 2.0**-23

LIBROSA = LogMel(
    sample_rate=22_050,
    n_fft=2048,
    window=2048,
    hop=512,
    n_mels=128,
    low_hz=0.0,
    edges="zero",
    mel_scale="slaney",
    mel_norm="slaney",
    log="decibel",
    floor=1e-10,
    floor_kind="clamp",
    dynamic_range=80.0,
)
"""`power_to_db(melspectrogram(y))` of librosa, with its defaults."""

KALDI = LogMel(
    sample_rate=16_000,
    n_fft=512,
    window=400,
    hop=160,
    n_mels=80,
    low_hz=20.0,
    scale=2.0**15,
    pre_emphasis=0.97,
    pre_emphasis_on="frame",
    remove_dc=True,
    window_kind="povey",
    mel_scale="kaldi",
    floor=_FLOAT32_EPSILON,
    floor_kind="clamp",
)
"""`compute-fbank-feats --num-mel-bins=80 --dither=0`, which counts in 16-bit steps.

Lhotse and icefall: scale 1 and edges "mirror".
"""

SEAMLESS = replace(KALDI, norm=UtteranceNorm(ddof=1, epsilon=1e-7))
"""`SeamlessM4TFeatureExtractor`, of w2v-BERT too, before it joins frames two by two."""

PARAKEET = LogMel(
    sample_rate=16_000,
    n_fft=512,
    window=400,
    hop=160,
    n_mels=80,
    low_hz=0.0,
    edges="zero",
    drop_last=True,
    pre_emphasis=0.97,
    window_kind="hann_symmetric",
    mel_scale="slaney",
    mel_norm="slaney",
    floor=2.0**-24,
    norm=UtteranceNorm(ddof=1, epsilon=1e-5, epsilon_on="deviation"),
)
"""`ParakeetFeatureExtractor`: NeMo's preprocessor without dither."""

WHISPER = LogMel(
    sample_rate=16_000,
    n_fft=400,
    window=400,
    hop=160,
    n_mels=80,
    low_hz=0.0,
    edges="reflect",
    drop_last=True,
    mel_scale="slaney",
    mel_norm="slaney",
    log="log10",
    floor=1e-10,
    floor_kind="clamp",
    dynamic_range=8.0,
    norm=FixedNorm(mean=(-4.0,), scale=(4.0,)),
)
"""`WhisperFeatureExtractor`. Its models heard 30 s: pad with zeros, and give that as the length."""

ALGOPERF = LogMel(
    sample_rate=16_000,
    n_fft=512,
    window=400,
    hop=160,
    n_mels=80,
    low_hz=125.0,
    high_hz=7600.0,
    edges="extend",
    pre_emphasis=0.97,
    pre_emphasis_on="frame",
    mel_scale="kaldi",
    floor=1e-5,
    floor_kind="clamp",
    norm=FixedNorm(mean=MEANS, scale=DEVIATIONS),
)
"""The LibriSpeech workloads of MLCommons' AlgoPerf, on samples in [-1, 1]."""

PRESETS: Mapping[str, LogMel] = MappingProxyType(
    {
        "librosa": LIBROSA,
        "kaldi": KALDI,
        "parakeet": PARAKEET,
        "whisper": WHISPER,
        "seamless": SEAMLESS,
        "algoperf": ALGOPERF,
    }
)
"""Every preset by its name."""


def preset(name: str) -> LogMel:
    """The settings of a toolkit by name.

    Args:
        name: one of `PRESETS`.

    Returns:
        The settings.

    Raises:
        ConfigError: an unknown name.

    Example:
        >>> preset("parakeet").n_mels
        80
    """
    return look_up(PRESETS, name, "a preset")
