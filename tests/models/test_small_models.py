"""GRU and autoencoder by hand, and what activation, norm and width change in a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.autoencoder import Autoencoder
from research.models.gru_classifier import GRUClassifier
from research.models.lenet import LeNet
from research.models.mlp import MLP
from research.models.norms import normalise
from research.models.transformer_lm import TransformerLM


def shapes(model, inputs):
    params = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    return {
        jax.tree_util.keystr(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def test_a_gru_is_its_equations():
    model = GRUClassifier(classes=3, width=4)
    x = np.random.default_rng(0).normal(size=(2, 5, 1)).astype(np.float32)
    params = jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(0), x)["params"])
    cell, last = params["GRUCell_0"], params["Dense_0"]

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    state = np.zeros((2, 4))
    for frame in range(5):
        into = {
            gate: x[:, frame] @ cell[f"i{gate}"]["kernel"] + cell[f"i{gate}"]["bias"]
            for gate in "rzn"
        }
        reset = sigmoid(into["r"] + state @ cell["hr"]["kernel"])
        update = sigmoid(into["z"] + state @ cell["hz"]["kernel"])
        new = np.tanh(into["n"] + reset * (state @ cell["hn"]["kernel"] + cell["hn"]["bias"]))
        state = (1 - update) * new + update * state
    expected = state @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)({"params": params}, x), expected, atol=1e-5)


def test_every_frame_reaches_the_class():
    model, x = GRUClassifier(classes=3, width=4), jnp.ones((1, 7, 2))
    params = jax.jit(model.init)(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.asarray(model.apply(params, x)) ** 2)))(x)
    assert (jnp.abs(gradient) > 0).all()


def test_an_autoencoder_passes_everything_through_its_code():
    model, x = Autoencoder(widths=(8, 6), code=2), np.linspace(0, 1, 12, dtype=np.float32)
    params = jax.jit(model.init)(jax.random.key(0), x[None])
    jacobian = jax.jit(jax.jacobian(lambda x: jnp.asarray(model.apply(params, x[None]))[0]))(x)
    # The map of 12 pixels to 12 has no more than two directions, those of the code.
    singular = np.linalg.svd(jacobian, compute_uv=False)
    assert singular[1] > 1e-6 * singular[0] > singular[2]


@pytest.mark.parametrize("model", [MLP, LeNet])
def test_an_activation_changes_no_parameter_and_a_norm_adds_its_own(model):
    images = jnp.zeros((1, 8, 8, 1))
    plain = shapes(model(10), images)
    assert shapes(model(10, activation=jnp.tanh), images) == plain
    with_norm = shapes(model(10, norm="layer"), images)
    assert with_norm.items() > plain.items()
    assert all("LayerNorm" in name for name in {*with_norm} - {*plain})
    layers = sum("kernel" in name for name in plain) - 1  # all but the last
    assert sum("scale" in name for name in with_norm) == layers


def test_rms_norm_takes_the_place_of_every_layer_norm():
    text = jnp.zeros((1, 4), jnp.int32)
    sizes = [shapes(TransformerLM(7, 4, 8, 2, 2, norm=norm), text) for norm in ("layer", "rms")]
    layer, rms = ([name for name in each if "Norm" in name] for each in sizes)
    assert sorted(name.replace("RMSNorm", "LayerNorm") for name in rms) == sorted(
        name for name in layer if "bias" not in name
    )
    assert len(rms) == 5


@pytest.mark.parametrize(
    ("norm", "axes"), [("layer", (2,)), ("rms", None), ("group", (1, 3)), (None, None)]
)
def test_norms_by_their_definition(norm, axes):
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return normalise(x, norm)

    x = np.random.default_rng(0).normal(2.0, 3.0, size=(2, 5, 8)).astype(np.float32)
    found, _ = jax.jit(Net().init_with_output)(jax.random.key(0), x)
    expected = x
    if norm == "rms":
        expected = x / np.sqrt(np.mean(x**2, axis=2, keepdims=True))
    elif norm is not None:
        parts = x.reshape(2, 5, 2, 4) if norm == "group" else x
        centred = parts - parts.mean(axis=axes, keepdims=True)
        expected = (centred / centred.std(axis=axes, keepdims=True)).reshape(x.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_an_unknown_norm_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'layer'"):
        MLP(10, norm="layr").init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
