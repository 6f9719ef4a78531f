"""Each preset against the toolkit that it is named after, where that is installed."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from research.speech.features import log_mel
from research.speech.log_mel_config import LogMel
from research.speech.presets import KALDI, LIBROSA, PARAKEET, SEAMLESS, WHISPER

TOLERANCE = 1e-3


def speechlike(samples: int, seed: int = 0, rate: int = 16_000) -> np.ndarray:
    """A rising tone with harmonics under a moving envelope, in noise as a microphone has it."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / rate
    phase = 2 * np.pi * (120 + 400 * time) * time
    voiced = sum(np.sin(k * phase) / k for k in range(1, 12))
    envelope = 0.5 - 0.5 * np.cos(2 * np.pi * 3.1 * time)
    return (0.2 * envelope * voiced + 0.02 * rng.normal(size=samples)).astype(np.float32)


def features_of(utterances: list[np.ndarray], config: LogMel) -> list[np.ndarray]:
    """Of a padded batch, with what must not be read in its padding; each cut to its frames."""
    longest = max(map(len, utterances))
    batch = np.full((len(utterances), longest), 0.7, np.float32)
    for row, utterance in zip(batch, utterances, strict=True):
        row[: len(utterance)] = utterance
    lengths = jnp.array([len(utterance) for utterance in utterances])
    features, frames = log_mel(jnp.asarray(batch), lengths, config)
    assert frames.tolist() == [config.frames(len(utterance)) for utterance in utterances]
    return [np.asarray(row[:count]) for row, count in zip(features, frames, strict=True)]


def assert_equal(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.shape == reference.shape
        np.testing.assert_allclose(mine, reference, atol=TOLERANCE, rtol=0)


UTTERANCES = [speechlike(n, seed) for seed, n in enumerate((16_000, 12_345, 4001))]


@pytest.mark.parametrize("reflect", [False, True])
def test_librosa(reflect):
    librosa = pytest.importorskip("librosa")
    config = replace(LIBROSA, edges="reflect") if reflect else LIBROSA
    pad_mode = "reflect" if reflect else "constant"
    theirs = [
        librosa.power_to_db(librosa.feature.melspectrogram(y=x, pad_mode=pad_mode)).T
        for x in UTTERANCES
    ]
    assert_equal(features_of(UTTERANCES, config), theirs)


def test_librosa_with_other_windows_scales_and_powers():
    librosa = pytest.importorskip("librosa")
    config = LogMel(
        sample_rate=16_000,
        n_fft=512,
        window=333,
        hop=97,
        low_hz=50.0,
        high_hz=7000.0,
        edges="zero",
        window_kind="hamming_periodic",
        power=1,
        mel_norm="slaney",
        floor=1e-5,
    )
    theirs = [
        np.log(
            librosa.feature.melspectrogram(
                y=x,
                sr=16_000,
                n_fft=512,
                win_length=333,
                hop_length=97,
                window="hamming",
                power=1.0,
                n_mels=40,
                fmin=50.0,
                fmax=7000.0,
                htk=True,
                norm="slaney",
            ).T
            + 1e-5
        )
        for x in UTTERANCES
    ]
    assert_equal(features_of(UTTERANCES, config), theirs)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"edges": "mirror", "scale": 1.0},
        {"n_mels": 40, "high_hz": 7600.0, "window_kind": "hamming_symmetric"},
        {"pre_emphasis": 0.0, "remove_dc": False, "power": 1},
    ],
)
def test_kaldi(settings):
    knf = pytest.importorskip("kaldi_native_fbank")
    config = replace(KALDI, **settings)
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = config.edges == "snip"
    options.frame_opts.window_type = config.window_kind.removesuffix("_symmetric")
    options.frame_opts.preemph_coeff = config.pre_emphasis
    options.frame_opts.remove_dc_offset = config.remove_dc
    options.use_power = config.power == 2
    options.mel_opts.num_bins = config.n_mels
    options.mel_opts.high_freq = config.top_hz
    theirs = []
    for x in UTTERANCES:
        extractor = knf.OnlineFbank(options)
        extractor.accept_waveform(16_000, (x * config.scale).tolist())
        extractor.input_finished()
        frames = range(extractor.num_frames_ready)
        theirs.append(np.stack([extractor.get_frame(i) for i in frames]))
    assert_equal(features_of(UTTERANCES, config), theirs)


def extractor(name: str):
    """Of transformers, which imports it lazily; Parakeet's needs torch."""
    transformers = pytest.importorskip("transformers")
    if name == "ParakeetFeatureExtractor":
        pytest.importorskip("torch")
    return getattr(transformers, name)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_parakeet_as_a_padded_batch(n_mels):
    extract = extractor("ParakeetFeatureExtractor")(feature_size=n_mels)
    output = extract(UTTERANCES, sampling_rate=16_000, return_tensors="np")
    counts = output["attention_mask"].sum(axis=1)
    theirs = [x[:count] for x, count in zip(output["input_features"], counts, strict=True)]
    assert_equal(features_of(UTTERANCES, replace(PARAKEET, n_mels=n_mels)), theirs)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_whisper_one_utterance_at_a_time(n_mels):
    extract = extractor("WhisperFeatureExtractor")(feature_size=n_mels)
    theirs = [
        extract(x, sampling_rate=16_000, return_tensors="np", padding="longest", truncation=False)[
            "input_features"
        ][0].T
        for x in UTTERANCES
    ]
    assert_equal(features_of(UTTERANCES, replace(WHISPER, n_mels=n_mels)), theirs)


def test_whisper_over_thirty_seconds_of_which_most_are_zeros():
    extract = extractor("WhisperFeatureExtractor")()
    theirs = extract(UTTERANCES[1], sampling_rate=16_000, return_tensors="np")["input_features"]
    padded = np.pad(UTTERANCES[1], (0, 480_000 - UTTERANCES[1].size))
    assert_equal(features_of([padded], WHISPER), [theirs[0].T])


def test_seamless():
    extract = extractor("SeamlessM4TFeatureExtractor")(stride=1)
    output = extract(UTTERANCES, sampling_rate=16_000, pad_to_multiple_of=1, return_tensors="np")
    counts = [SEAMLESS.frames(len(x)) for x in UTTERANCES]
    theirs = [x[:count] for x, count in zip(output["input_features"], counts, strict=True)]
    assert_equal(features_of(UTTERANCES, SEAMLESS), theirs)
