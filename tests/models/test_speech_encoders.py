"""Speech encoders: padding never leaks, every frame is used, gradients reach every parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models.bilstm_encoder import BiLSTMEncoder
from research.models.conv_attention_encoder import ConvAttentionEncoder, DepthwiseConv

pytestmark = pytest.mark.usefixtures("in_haste")

ENCODERS = {
    "bilstm": BiLSTMEncoder(classes=5, width=6, layers=2),
    "conv_attention": ConvAttentionEncoder(classes=5, width=8, size=3, conv_blocks=2, heads=2),
}
LENGTHS = jnp.array([7, 4])


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request):
    model = ENCODERS[request.param]
    features = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 3)), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0), features, LENGTHS)["params"]
    apply = jax.jit(lambda params, x, lengths: model.apply({"params": params}, x, lengths))
    return apply, params, features


def test_what_lies_in_padding_changes_no_valid_frame(encoder):
    apply, params, features = encoder
    junk = features.at[1, 4:].set(100.0)
    np.testing.assert_allclose(
        apply(params, features, LENGTHS)[1, :4], apply(params, junk, LENGTHS)[1, :4], atol=1e-5
    )


def test_a_sequence_gives_the_same_alone_as_in_a_padded_batch(encoder):
    apply, params, features = encoder
    alone = apply(params, features[1:, :4], LENGTHS[1:])
    np.testing.assert_allclose(apply(params, features, LENGTHS)[1, :4], alone[0], atol=1e-5)


def test_every_valid_frame_reaches_every_output(encoder):
    apply, params, features = encoder

    def summed(x, frame):
        return jnp.sum(apply(params, x, LENGTHS)[0, frame])

    for frame in (0, 6):
        reach = jnp.abs(jax.grad(summed)(features, frame)[0]).sum(axis=-1)
        assert (reach > 0).all()


def test_gradients_reach_every_parameter(encoder):
    apply, params, features = encoder
    gradients = jax.grad(lambda p: jnp.sum(apply(p, features, LENGTHS) ** 2))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        # keys shifted alike change no softmax, so their bias has no gradient
        if "['key']['bias']" not in jax.tree_util.keystr(path):
            assert jnp.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("size", [1, 4, 7])
def test_depthwise_convolution_is_numpy_correlation_per_channel(size):
    rng = np.random.default_rng(size)
    x, filters = rng.normal(size=(1, 6, 2)), rng.normal(size=(size, 2))
    params = {"params": {"filters": jnp.asarray(filters, jnp.float32)}}
    actual = jnp.asarray(DepthwiseConv(size).apply(params, jnp.asarray(x, jnp.float32)))
    for channel in range(2):
        before = size // 2
        padded = np.pad(x[0, :, channel], (before, size - 1 - before))
        expected = np.correlate(padded, filters[:, channel], "valid")
        np.testing.assert_allclose(actual[0, :, channel], expected, atol=1e-5)
