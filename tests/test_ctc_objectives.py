"""Objectives over label sequences: their formulas by enumeration, and what all of them promise."""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste

import kernels
from research.errors import ConfigError
from research.objectives import ctc as plain
from research.objectives import ctc_auxiliary as auxiliary
from research.objectives.ctc_terms import EncoderOutput

pytestmark = pytest.mark.usefixtures("in_haste")

LOG_PRIORS = jnp.log(jnp.array([0.6, 0.2, 0.2]))


def intermediate(logits, *args, **options):
    """Of an encoder whose intermediate predictions are made from its last."""
    outputs = EncoderOutput(logits, (logits[:, :, ::-1], 0.5 * logits))
    return auxiliary.intermediate_ctc(outputs, *args, **options)


# Each with the name of its weight, and one that makes it differ from CTC.
OBJECTIVES = {
    "ctc": (plain.ctc, None, None),
    "label_smoothed": (plain.label_smoothed_ctc, "smoothing", 0.3),
    "entropy_regularised": (plain.entropy_regularised_ctc, "weight", 0.2),
    "focal": (plain.focal_ctc, "focus", 0.5),
    "prior": (functools.partial(plain.prior_ctc, log_priors=LOG_PRIORS), "weight", 0.3),
    "intermediate": (intermediate, "weight", 0.3),
    "consistency": (auxiliary.consistency_ctc, "weight", 0.2),
    "framewise": (auxiliary.framewise_cross_entropy, None, None),
}
every_objective = pytest.mark.parametrize("name", OBJECTIVES)
of_single_rows = pytest.mark.parametrize("name", [n for n in OBJECTIVES if n != "consistency"])


@functools.cache
def compiled(name, *, gradient=True):
    """One program for every weight: (4, 4, 3) logits with their batch, and the weight."""
    function, keyword, _ = OBJECTIVES[name]

    def objective(logits, lengths, labels, label_paddings, weight):
        options = {} if keyword is None else {keyword: weight}
        return function(logits, lengths, labels, label_paddings, **options)

    return jax.jit(jax.value_and_grad(objective) if gradient else objective)


def evaluate(name, logits, lengths, labels, label_paddings, weight=None):
    """The value and its gradient; of dtypes that make it one program for all tests."""
    whole = np.asarray(lengths, np.int32), np.asarray(labels, np.int32)
    weight = OBJECTIVES[name][2] if weight is None else weight
    with compiled_in_haste():
        return compiled(name)(logits, *whole, np.asarray(label_paddings, np.float32), weight)


def batch(seed=0, dtype=jnp.float32):
    """Four utterances of which the third is too short for its labels."""
    logits = np.random.default_rng(seed).normal(size=(4, 4, 3))
    labels = jnp.array([[1, 2], [2, 9], [1, 1], [2, 1]])
    label_paddings = jnp.array([[0.0, 0], [0, 1], [0, 0], [0, 0]])
    return jnp.asarray(logits, dtype), jnp.array([4, 3, 2, 3]), labels, label_paddings


@every_objective
def test_what_cannot_count_does_not(name):
    logits, lengths, labels, label_paddings = batch()
    value, gradient = evaluate(name, logits, lengths, labels, label_paddings)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    assert (jnp.abs(gradient[jnp.array([0, 1, 3])]).sum(axis=(1, 2)) > 1e-3).all()
    assert not gradient[2].any()  # there is no path: the rest is as if it were not there
    assert not gradient[1, 3:].any()
    junk = logits.at[1, 3:].set(jnp.nan).at[2, 2:].set(jnp.inf).at[3, 3:].set(-jnp.inf)
    # But for the views of one utterance, of which one is never too short alone.
    spoilt = junk if name == "consistency" else junk.at[2, :2].set(-3.0)
    again, other = evaluate(name, spoilt, lengths, labels, label_paddings)
    np.testing.assert_allclose(again, value, rtol=1e-6)
    np.testing.assert_allclose(other, gradient, atol=1e-6)


@of_single_rows
def test_is_the_mean_over_utterances_with_a_path(name):
    logits, lengths, labels, label_paddings = batch()
    whole = evaluate(name, logits, lengths, labels, label_paddings)[0]
    alone = [
        evaluate(name, logits, lengths * (jnp.arange(4) == i), labels, label_paddings)[0]
        for i in (0, 1, 3)
    ]
    np.testing.assert_allclose(whole, np.mean(alone), rtol=1e-5)


@every_objective
def test_the_strict_modes_of_jax_find_nothing(name):
    given = batch()
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
        jax.debug_key_reuse(True),
    ):
        value, gradient = evaluate(name, *given)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@every_objective
def test_a_batch_without_a_path_is_zero(name):
    labels = jnp.full((4, 2), 1)
    value, gradient = evaluate(name, batch()[0], jnp.full(4, 2), labels, jnp.zeros((4, 2)))
    assert value == 0
    assert not gradient.any()


@of_single_rows
def test_a_frame_that_allows_no_class_leaves_its_utterance_out(name):
    logits, lengths, *rest = batch()
    value, gradient = evaluate(name, logits.at[0, 1].set(-jnp.inf), lengths, *rest)
    without, slopes = evaluate(name, logits, lengths.at[0].set(0), *rest)
    np.testing.assert_allclose(value, without, rtol=1e-6)
    np.testing.assert_allclose(gradient, slopes, atol=1e-6)


def test_a_class_that_never_was_likely_has_a_prior():
    priors = jnp.array([-0.5, -0.9, -jnp.inf])

    @jax.jit
    def slope(log_priors):
        return jax.value_and_grad(plain.prior_ctc)(*batch(), log_priors=log_priors)

    with compiled_in_haste():
        (value, gradient), (floored, _) = slope(priors), slope(priors.at[2].set(-12.0))
    np.testing.assert_array_equal(value, floored)
    assert jnp.isfinite(gradient).all()


@every_objective
def test_divergence_is_not_hidden(name):
    logits, *rest = batch()
    assert jnp.isnan(evaluate(name, logits.at[0, 1, 1].set(jnp.nan), *rest)[0])


@of_single_rows
def test_the_gradient_is_that_of_finite_differences(name):
    """Of all but the one that holds something fixed, which has a test of its own."""
    logits, *rest = batch(seed=1)
    _, gradient = evaluate(name, logits, *rest)
    rng, wide = np.random.default_rng(2), np.asarray(logits, np.float64)
    for _ in range(3):
        direction = rng.normal(size=wide.shape)
        with jax.enable_x64(True), compiled_in_haste():
            above, below = (
                compiled(name, gradient=False)(wide + h * direction, *rest, OBJECTIVES[name][2])
                for h in (1e-5, -1e-5)
            )
            slope = float(above - below) / 2e-5
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=2e-6, atol=2e-6)


NEUTRAL = [name for name, (_, keyword, _) in OBJECTIVES.items() if keyword is not None]


@pytest.mark.parametrize("name", NEUTRAL)
def test_is_ctc_at_its_neutral_weight(name):
    arguments = batch()
    value, gradient = evaluate(name, *arguments, weight=0.0)
    expected, expected_gradient = evaluate("ctc", *arguments)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_equal_priors_change_nothing_but_a_constant():
    logits, lengths, *rest = batch()
    with compiled_in_haste():
        value = jax.jit(plain.prior_ctc)(logits, lengths, *rest, log_priors=jnp.full(3, -1.0))
    constant = 0.3 * np.mean(lengths[jnp.array([0, 1, 3])] / np.array([2, 1, 2]))
    np.testing.assert_allclose(value, evaluate("ctc", *batch())[0] - constant, rtol=1e-6)


def test_weights_are_by_default_those_of_the_sources():
    expected = {
        plain.label_smoothed_ctc: 0.05,
        plain.entropy_regularised_ctc: 0.2,
        plain.focal_ctc: 0.5,
        plain.prior_ctc: 0.3,
        auxiliary.intermediate_ctc: 0.3,
        auxiliary.self_conditioned_ctc: 0.5,
        auxiliary.consistency_ctc: 0.2,
    }
    for function, weight in expected.items():
        options = inspect.signature(function).parameters
        (default,) = [options[k].default for k in ("weight", "smoothing", "focus") if k in options]
        assert default == weight, function.__name__


def paths_of(labels, frames, classes):
    for path in itertools.product(range(classes), repeat=frames):
        if [k for k, _ in itertools.groupby(path) if k != 0] == list(labels):
            yield np.array(path)


def by_enumeration(name, logits, labels):
    """The formulas, of one utterance without padding, over all paths."""
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    frames = np.arange(len(logits))
    scores = np.array([log_probs[frames, p].sum() for p in paths_of(labels, *logits.shape)])
    total = np.logaddexp.reduce(scores)
    if name == "ctc":
        return -total
    if name == "label_smoothed":
        divergence = (np.exp(log_probs) * (log_probs + np.log(3))).sum()
        return 0.7 * -total + 0.3 * divergence
    if name == "entropy_regularised":
        share = np.exp(scores - total)
        return -total - 0.2 * -(share * np.log(share)).sum()
    if name == "focal":
        return (1 - np.exp(total)) ** 0.5 * -total
    if name == "prior":
        scaled = log_probs - 0.3 * np.asarray(LOG_PRIORS, np.float64)
        paths = paths_of(labels, *logits.shape)
        return -np.logaddexp.reduce([scaled[frames, p].sum() for p in paths])
    return -scores.max()


@pytest.mark.parametrize(
    "name", ["ctc", "label_smoothed", "entropy_regularised", "focal", "prior", "framewise"]
)
def test_is_its_formula_over_all_paths(name):
    logits, _, labels, label_paddings = batch(seed=3)
    rows = [
        by_enumeration(name, np.asarray(x, np.float64), y)
        for x, y in zip(logits, [[1, 2], [2], [1, 1], [2, 1]], strict=True)
    ]
    expected = np.mean(np.array(rows) / [2, 1, 2, 2])
    value = evaluate(name, logits, jnp.full(4, 4), labels, label_paddings)[0]
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def alone(logits, length):
    """The first utterance, with labels 1 and 2; the others have no path."""
    return (
        logits,
        jnp.array([length, 0, 0, 0]),
        jnp.full((4, 2), jnp.array([1, 2])),
        jnp.zeros((4, 2)),
    )


def test_entropy_is_that_of_the_only_path():
    arguments = alone(batch(seed=4)[0], 2)
    value, _ = evaluate("entropy_regularised", *arguments, weight=1.0)
    np.testing.assert_allclose(value, evaluate("ctc", *arguments)[0], atol=1e-6)


def test_focal_loss_of_certain_utterances_has_a_slope_of_zero():
    certain = 200.0 * jax.nn.one_hot(jnp.array([[1, 0, 2, 0]] * 4), 3)
    value, gradient = evaluate("focal", *alone(certain, 3))
    assert value == 0
    assert not gradient.any()


def test_mean_posterior_is_over_valid_frames():
    logits, lengths, *_ = batch()
    spoilt = logits.at[1, 3:].set(jnp.nan)
    probs = np.asarray(jax.nn.softmax(logits))
    frames = np.concatenate([probs[i, :length] for i, length in enumerate(lengths)])
    np.testing.assert_allclose(plain.mean_posterior(spoilt, lengths), frames.mean(axis=0), 1e-5)


def test_intermediate_predictions_count_by_their_weight():
    logits, *rest = batch()
    value, _ = evaluate("intermediate", logits, *rest, weight=0.4)
    parts = [evaluate("ctc", x, *rest)[0] for x in (logits, logits[:, :, ::-1], 0.5 * logits)]
    np.testing.assert_allclose(value, 0.6 * parts[0] + 0.2 * (parts[1] + parts[2]), rtol=1e-6)
    for outputs in (logits, EncoderOutput(logits)):
        with pytest.raises(ConfigError, match="intermediate logits"):
            auxiliary.intermediate_ctc(outputs, *rest)


def test_the_self_conditioned_objective_is_that_of_intermediate_predictions():
    def traced(function, **options):
        outputs = EncoderOutput(batch()[0], (batch(5)[0],))
        return str(jax.make_jaxpr(functools.partial(function, **options))(outputs, *batch()[1:]))

    found = traced(auxiliary.self_conditioned_ctc)
    assert found == traced(auxiliary.intermediate_ctc, weight=0.5)
    assert found != traced(auxiliary.intermediate_ctc)


def test_conditioning_adds_what_the_predictions_say():
    rng = np.random.default_rng(7)
    hidden, projection = rng.normal(size=(1, 2, 5)), rng.normal(size=(3, 5))
    logits = jnp.log(jnp.array([[[1.0, 0, 0], [0.25, 0.5, 0.25]]]))
    rows = [projection[0], projection.T @ [0.25, 0.5, 0.25]]
    result = auxiliary.condition(jnp.asarray(hidden), logits, jnp.asarray(projection))
    np.testing.assert_allclose(result, hidden + np.stack(rows)[None], rtol=1e-5)


def views(seed=8):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=(2, 4, 3)), jnp.float32)
    rest = jnp.array([4, 3]), jnp.array([[1, 2], [2, 0]]), jnp.array([[0.0, 0], [0, 1]])
    twice = [jnp.concatenate([array, array]) for array in rest]
    return logits, rest, twice


def test_equal_views_are_consistent():
    logits, _, twice = views()
    both = jnp.concatenate([logits, logits])
    value, gradient = evaluate("consistency", both, *twice, weight=5.0)
    expected, expected_gradient = evaluate("ctc", both, *twice)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)
    with pytest.raises(ConfigError, match="even number of rows; received 3"):
        auxiliary.consistency_ctc(both[:3], *(array[:3] for array in twice))


def test_each_view_learns_from_the_other_held_fixed():
    _, rest, twice = views()
    logits = jnp.concatenate([views(9)[0], views(10)[0]])
    value, gradient = evaluate("consistency", logits, *twice, weight=1.0)
    value0, gradient0 = evaluate("consistency", logits, *twice, weight=0.0)
    log_probs = np.asarray(jax.nn.log_softmax(logits), np.float64)
    p, q = log_probs[:2], log_probs[2:]
    terms = np.exp(q) * (q - p) + np.exp(p) * (p - q)
    counts, valid = np.array([2, 1]), np.arange(4)[None, :] < np.asarray(rest[0])[:, None]
    divergence = ((terms.sum(axis=2) * valid).sum(axis=1) / counts).mean() / 2
    np.testing.assert_allclose(value - value0, divergence, rtol=1e-4)
    # d KL(stop(q) || softmax(x)) / dx = softmax(x) - q
    slope = (np.exp(p) - np.exp(q)) * valid[:, :, None] / counts[:, None, None] / 4
    np.testing.assert_allclose((gradient - gradient0)[:2], slope, atol=1e-6)
    np.testing.assert_allclose((gradient - gradient0)[2:], -slope, atol=1e-6)


def test_framewise_targets_may_come_from_another_model():
    logits, lengths, labels, label_paddings = batch()
    aligner = batch(seed=11)[0]
    paddings = jnp.arange(4)[None, :] >= lengths[:, None]
    frames = kernels.ctc_alignment(aligner, paddings, labels, label_paddings).frames
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), frames[:, :, None], 2)[:, :, 0]
    sums = -jnp.sum(log_probs * ~paddings, axis=1)
    expected = (sums[0] / 2 + sums[1] + sums[3] / 2) / 3

    def loss(x, y):
        return auxiliary.framewise_cross_entropy(
            x, lengths, labels, label_paddings, aligner_logits=y
        )

    with compiled_in_haste():
        value, (_, through) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(logits, aligner)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert not through.any()
