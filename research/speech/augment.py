"""Augmentation of waveforms: gain, noise, speed, rooms. Pure and jittable.

Axis suffixes: B batch, S samples, M recordings or rooms, R samples of a response.
Masks on features are in `research.speech.spec_augment`.
"""

import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from research.errors import ConfigError


def random_gain(
    key: Array, waveforms: Float[Array, "B S"], decibels: tuple[float, float]
) -> Float[Array, "B S"]:
    """Multiply each waveform by 10^(g / 20), g uniform in the range.

    Args:
        key: random key.
        waveforms: (B, S).
        decibels: lowest and highest gain.

    Returns:
        Waveforms of the same shape.

    Raises:
        ConfigError: the range is empty.

    Example:
        >>> random_gain(jax.random.key(0), jnp.ones((1, 2)), (20.0, 20.0)).tolist()
        [[10.0, 10.0]]
    """
    low, high = _range(decibels)
    gains = jax.random.uniform(key, waveforms.shape[:1], minval=low, maxval=high)
    return waveforms * (10.0 ** (gains / 20.0)).astype(waveforms.dtype)[:, None]


def add_noise(
    key: Array,
    waveforms: Float[Array, "B S"],
    lengths: Int[Array, " B"],
    snr_decibels: tuple[float, float],
) -> Float[Array, "B S"]:
    """Add white gaussian noise, its ratio to the signal uniform in the range for each waveform.

    The power of the signal is its mean square over the valid samples; the noise is scaled to
    that power times 10^(-snr / 10). A silent waveform stays silent.

    Args:
        key: random key.
        waveforms: (B, S).
        lengths: valid samples, (B,); what lies beyond stays as it is.
        snr_decibels: lowest and highest ratio of signal to noise power.

    Returns:
        Waveforms of the same shape.

    Raises:
        ConfigError: the range is empty.

    Example:
        >>> x = jnp.ones((1, 4000))
        >>> noise = add_noise(jax.random.key(0), x, jnp.array([4000]), (20.0, 20.0)) - x
        >>> round(float(noise.std()), 2)
        0.1
    """
    low, high = _range(snr_decibels)
    snr_key, noise_key = jax.random.split(key)
    batch = waveforms.shape[0]
    snr = jax.random.uniform(snr_key, (batch,), minval=low, maxval=high)
    noise = jax.random.normal(noise_key, waveforms.shape, waveforms.dtype)
    power = _power(waveforms, lengths)
    scale = _root(power * 10.0 ** (-snr / 10.0)).astype(waveforms.dtype)
    return waveforms + jnp.where(_valid(waveforms, lengths), scale[:, None] * noise, 0.0)


def mix_noise(
    key: Array,
    waveforms: Float[Array, "B S"],
    lengths: Int[Array, " B"],
    noises: Float[Array, "M N"],
    snr_decibels: tuple[float, float],
) -> Float[Array, "B S"]:
    """Add recorded noise, a random stretch of a random recording to each waveform.

    The ratio is as in `add_noise`, of mean squares over the valid samples. A recording that is
    shorter than the waveform goes round; one that is silent there adds nothing.

    Args:
        key: random key.
        waveforms: (B, S).
        lengths: valid samples, (B,); what lies beyond stays as it is.
        noises: recordings of noise without padding, (M, N).
        snr_decibels: lowest and highest ratio of signal to noise power.

    Returns:
        Waveforms of the same shape.

    Raises:
        ConfigError: the range is empty.

    Source: Snyder et al. 2015, "MUSAN: A Music, Speech, and Noise Corpus", arXiv:1510.08484.

    Example:
        >>> x = jnp.ones((1, 4000))
        >>> hum = jnp.sin(jnp.arange(400.0))[None, :]
        >>> y = mix_noise(jax.random.key(0), x, jnp.array([4000]), hum, (20.0, 20.0))
        >>> round(float(jnp.mean((y - x) ** 2)), 4)
        0.01
    """
    low, high = _range(snr_decibels)
    snr_key, which_key, start_key = jax.random.split(key, 3)
    batch, samples = waveforms.shape
    count, size = noises.shape
    which = jax.random.randint(which_key, (batch, 1), 0, count)
    start = jax.random.randint(start_key, (batch, 1), 0, size)
    noise = noises[which, (start + jnp.arange(samples)[None, :]) % size].astype(waveforms.dtype)
    snr = jax.random.uniform(snr_key, (batch,), minval=low, maxval=high)
    signal_power, noise_power = _power(waveforms, lengths), _power(noise, lengths)
    some = noise_power > 0
    ratio = jnp.where(some, signal_power / jnp.where(some, noise_power, 1.0), 0.0)
    scale = _root(ratio * 10.0 ** (-snr / 10.0)).astype(waveforms.dtype)
    return waveforms + jnp.where(_valid(waveforms, lengths), scale[:, None] * noise, 0.0)


def speed_perturb(
    key: Array,
    waveforms: Float[Array, "B S"],
    lengths: Int[Array, " B"],
    speeds: tuple[float, ...] = (0.9, 1.0, 1.1),
) -> tuple[Float[Array, "B S_out"], Int[Array, " B"]]:
    """Play each waveform at one of the speeds, each as likely: tempo and pitch change together.

    Args:
        key: random key.
        waveforms: (B, S).
        lengths: valid samples, (B,).
        speeds: factors with at most three decimals.

    Returns:
        Waveforms as long as the slowest, ceil(S / min(speeds)), zero beyond the new lengths; and
        these, ceil(length / speed).

    Raises:
        ConfigError: no speed, or one that is not in 0.1..10.

    Source: Ko et al. 2015, "Audio Augmentation for Speech Recognition", Interspeech.

    Example:
        >>> y, lengths = speed_perturb(
        ...     jax.random.key(0), jnp.ones((1, 900)), jnp.array([450]), (0.9,)
        ... )
        >>> y.shape, lengths.tolist()
        ((1, 1000), [500])
    """
    if not speeds or not all(0.1 <= speed <= 10 for speed in speeds):
        raise ConfigError(f"speeds must be factors in 0.1..10, but got {speeds}")
    exact = [Fraction(speed).limit_denominator(1000) for speed in speeds]
    size = max(-(-waveforms.shape[1] * s.denominator // s.numerator) for s in exact)
    chosen = jax.random.randint(key, lengths.shape, 0, len(speeds))
    played, sizes = jnp.zeros((waveforms.shape[0], size), waveforms.dtype), lengths
    for i, speed in enumerate(exact):
        other, other_lengths = change_speed(waveforms, lengths, speed)
        other = jnp.pad(other, ((0, 0), (0, size - other.shape[1])))
        played = jnp.where((chosen == i)[:, None], other, played)
        sizes = jnp.where(chosen == i, other_lengths, sizes)
    return played, sizes


_ZERO_CROSSINGS = 16
_ROLL_OFF = 0.95


@partial(jax.jit, static_argnames="speed")
def change_speed(
    waveforms: Float[Array, "B S"], lengths: Int[Array, " B"], speed: Fraction
) -> tuple[Float[Array, "B S_out"], Int[Array, " B"]]:
    """Sample each waveform at the times 0, speed, 2 speed, ... with a windowed sinc.

    y[n] = sum_i x[i] c sinc(c (i - n speed)) w(c (i - n speed)): c = 0.95 min(1, 1 / speed) keeps
    what is below half of both rates, w is a Hann window over 16 zero crossings to each side.

    Args:
        waveforms: (B, S).
        lengths: valid samples, (B,).
        speed: a positive fraction p / q with small terms.

    Returns:
        Waveforms (B, ceil(S / speed)), zero beyond the new lengths; and these,
        ceil(length / speed).

    Example:
        >>> x = jnp.sin(0.1 * jnp.arange(400.0))[None, :]
        >>> y, lengths = change_speed(x, jnp.array([400]), Fraction(2))
        >>> y.shape, bool(jnp.abs(y[0, 50:150] - x[0, 100:300:2]).max() < 1e-3)
        ((1, 200), True)
    """
    lengths = lengths.astype(jnp.int32)
    signal = jnp.where(_valid(waveforms, lengths), waveforms, 0.0)
    p, q = speed.numerator, speed.denominator
    if p == q:
        return signal, lengths
    # Outputs m q + j, j < q, lie at m p + j p / q: q filters that move on by p samples.
    cutoff = _ROLL_OFF * min(1.0, q / p)
    reach = int(np.ceil(_ZERO_CROSSINGS / cutoff))
    offsets = np.arange(-reach, p + reach + 1)[:, None]
    distance = cutoff * (offsets - np.arange(q)[None, :] * p / q)
    inside = np.abs(distance) < _ZERO_CROSSINGS
    hann = np.where(inside, np.cos(np.pi / 2 * distance / _ZERO_CROSSINGS) ** 2, 0.0)
    filters = jnp.asarray(cutoff * np.sinc(distance) * hann, signal.dtype)
    size = -(-signal.shape[1] * q // p)
    blocks = -(-size // q)
    padded = jnp.pad(signal, ((0, 0), (reach, p * blocks + reach)))
    played = jax.lax.conv_general_dilated(
        padded[:, : (blocks - 1) * p + offsets.size, None],
        filters[:, None, :],
        window_strides=(p,),
        padding="VALID",
        dimension_numbers=("NHC", "HIO", "NHC"),
        precision="highest",
    )
    played = played.reshape(signal.shape[0], blocks * q)[:, :size]
    # ceil(lengths q / p), without a product that 32 bits could not hold.
    lengths = lengths // p * q - (-(lengths % p) * q // p)
    return jnp.where(_valid(played, lengths), played, 0.0), lengths


def room_responses(
    key: Array,
    rooms: int,
    sample_rate: int,
    *,
    seconds: tuple[float, float] = (0.2, 0.8),
    direct_decibels: tuple[float, float] = (0.0, 15.0),
) -> Float[Array, "M R"]:
    """Impulse responses of made-up rooms: the direct sound, then noise that dies away.

    h = delta + a n exp(-ln(1000) t / T60), with white gaussian n and a such that the direct sound
    has the drawn power relative to all that follows; T60 is the time in which it falls by 60 dB.

    Args:
        key: random key.
        rooms: how many, M.
        sample_rate: samples per second.
        seconds: shortest and longest T60.
        direct_decibels: least and most power of the direct sound over that of the rest.

    Returns:
        Responses (M, R) that begin with the direct sound, R = seconds[1] in samples.

    Raises:
        ConfigError: a range is empty, or a time is not positive.

    Source: Polack 1988, the exponential model of late reverberation; Moorer 1979, "About This
    Reverberation Business", Computer Music Journal 3(2).

    Example:
        >>> room_responses(jax.random.key(0), 3, 8000, seconds=(0.1, 0.5)).shape
        (3, 4000)
    """
    (shortest, longest), (low, high) = _range(seconds), _range(direct_decibels)
    if not shortest > 0:
        raise ConfigError(f"a room must take some time to fall silent, but got {seconds} seconds")
    time_key, noise_key, direct_key = jax.random.split(key, 3)
    size = round(longest * sample_rate)
    single = jnp.float32
    fall = jax.random.uniform(time_key, (rooms, 1), single, minval=shortest, maxval=longest)
    time = jnp.arange(size, dtype=single)[None, :] / sample_rate
    noise = jax.random.normal(noise_key, (rooms, size), single)
    tail = noise * jnp.exp(-math.log(1000.0) * time / fall)
    tail = tail.at[:, 0].set(0.0)
    direct = jax.random.uniform(direct_key, (rooms, 1), single, minval=low, maxval=high)
    tail *= 10.0 ** (-direct / 20.0) / jnp.sqrt((tail**2).sum(axis=1, keepdims=True))
    return tail.at[:, 0].set(1.0)


def reverberate(
    key: Array,
    waveforms: Float[Array, "B S"],
    lengths: Int[Array, " B"],
    responses: Float[Array, "M R"],
) -> Float[Array, "B S"]:
    """Hear each waveform in one of the rooms, each as likely, as loud as before.

    The convolution is taken from where the response is strongest, so that nothing is delayed and
    labels stay aligned; what rings on after the utterance is cut off.

    Args:
        key: random key.
        waveforms: (B, S).
        lengths: valid samples, (B,); what lies beyond stays as it is.
        responses: impulse responses, measured or from `room_responses`, (M, R).

    Returns:
        Waveforms of the same shape and, over their valid samples, the same mean square.

    Source: Ko et al. 2017, "A Study on Data Augmentation of Reverberant Speech for Robust Speech
    Recognition", ICASSP.

    Example:
        >>> x = jnp.sin(jnp.arange(100.0))[None, :]
        >>> echo = jnp.array([[0.0, 1.0, 0.0, 0.5]])
        >>> y = reverberate(jax.random.key(0), x, jnp.array([100]), echo)
        >>> ratio = y[0, 2:] / (x[0, 2:] + 0.5 * x[0, :-2])
        >>> bool(jnp.ptp(ratio) < 1e-3)
        True
    """
    samples, reach = waveforms.shape[1], responses.shape[1]
    which = jax.random.randint(key, waveforms.shape[:1], 0, responses.shape[0])
    valid = _valid(waveforms, lengths)
    signal = jnp.where(valid, waveforms, 0.0)
    size = samples + reach - 1
    spectrum = jnp.fft.rfft(signal, n=size) * jnp.fft.rfft(responses, n=size)[which]
    wet = jnp.fft.irfft(spectrum, n=size)
    strongest = jnp.argmax(jnp.abs(responses), axis=1)[which][:, None]
    wet = jnp.take_along_axis(wet, strongest + jnp.arange(samples)[None, :], axis=1)
    power = _power(wet, lengths)
    some = power > 0
    gain = jnp.where(some, _power(signal, lengths) / jnp.where(some, power, 1.0), 0.0)
    return jnp.where(valid, _root(gain)[:, None] * wet, waveforms).astype(waveforms.dtype)


def _valid(waveforms: Array, lengths: Array) -> Array:
    return jnp.arange(waveforms.shape[1])[None, :] < lengths[:, None]


def _power(waveforms: Array, lengths: Array) -> Array:
    """Mean square over the valid samples."""
    energy = jnp.where(_valid(waveforms, lengths), waveforms, 0.0) ** 2
    return energy.sum(axis=1) / jnp.maximum(lengths, 1)


def _root(x: Array) -> Array:
    """Square root with slope 0 at 0, for what is silent."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


def _range(decibels: tuple[float, float]) -> tuple[float, float]:
    low, high = decibels
    if not low <= high:
        raise ConfigError(f"a range must be (low, high), but got ({low}, {high})")
    return low, high
