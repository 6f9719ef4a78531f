"""Models of published recognisers against transformers: logits, losses and gradients."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_cases import CONFIGS, batch_of, variables_of

import kernels
from research.speech.pretrained.configuration import described, model_of
from research.speech.pretrained.weights import to_tensors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-5


def peer_of(name):
    """The model of transformers with the weights of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {**described(CONFIGS[name]), "ctc_loss_reduction": "sum"}
        config = transformers.AutoConfig.for_model(**settings)
        model = transformers.AutoModelForCTC.from_config(config).eval()
    tensors = to_tensors(variables_of(name))
    model.load_state_dict({key: torch.tensor(value) for key, value in tensors.items()})
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def compared(request):
    """Logits, CTC loss and gradients of both, of a padded batch, and which frames are valid.

    What is differentiated is the loss and a random combination of all valid logits.
    """
    name = request.param
    config, variables, peer = CONFIGS[name], variables_of(name), peer_of(name)
    inputs, lengths = batch_of(name)
    frames = config.frames(lengths)
    valid = np.arange(config.frames(inputs.shape[1]))[None] < frames[:, None]
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(*valid.shape, config.vocab_size)) * valid[..., None]
    weights = weights.astype(np.float32)
    # Few labels: the loss of those that do not fit their frames would be infinite.
    labels = rng.integers(1, config.vocab_size - 1, size=(3, 3))
    label_paddings = np.arange(3)[None] >= np.array([[3], [2], [1]])

    def objective(params):
        model = model_of(config)
        found = model.apply({**variables, "params": params}, inputs, jnp.asarray(lengths))
        logits = jnp.asarray(found)
        losses = kernels.ctc_loss(
            logits,
            ~valid,
            jnp.asarray(labels),
            jnp.asarray(label_paddings),
            blank_id=config.pad_token_id,
        )
        return jnp.sum(logits * weights) + jnp.sum(losses), (logits, jnp.sum(losses))

    (_, (logits, loss)), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(
        variables["params"]
    )
    mask = np.arange(inputs.shape[1])[None] < lengths[:, None]
    theirs = peer(
        torch.tensor(inputs),
        attention_mask=torch.tensor(mask, dtype=torch.long),
        labels=torch.tensor(np.where(label_paddings, -100, labels)),
    )
    # transformers computes the loss in float32, where torch's gradient is off by 3e-5.
    log_probs = theirs.logits.double().log_softmax(-1).transpose(0, 1)
    exact = torch.nn.functional.ctc_loss(
        log_probs,
        torch.tensor(labels),
        torch.tensor(frames),
        torch.tensor((~label_paddings).sum(axis=1)),
        blank=config.pad_token_id,
        reduction="sum",
    )
    ((theirs.logits * torch.tensor(weights)).sum() + exact).backward()
    return {
        "logits": (np.asarray(logits)[valid], theirs.logits.detach().numpy()[valid]),
        "loss": (float(loss), theirs.loss.item()),
        "gradients": (
            to_tensors({"params": gradients}),
            {
                key: np.zeros(value.shape) if value.grad is None else value.grad.numpy()
                for key, value in peer.named_parameters()
            },
        ),
    }


def test_logits_of_a_padded_batch_are_those_of_transformers(compared):
    ours, theirs = compared["logits"]
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def test_the_loss_is_that_of_transformers(compared):
    ours, theirs = compared["loss"]
    assert np.isfinite(theirs)
    assert ours == pytest.approx(theirs, rel=TOLERANCE)


def test_gradients_are_those_of_transformers(compared):
    ours, theirs = compared["gradients"]
    assert ours.keys() == theirs.keys()
    total = np.sqrt(sum(np.sum(value**2) for value in theirs.values()))
    for key, expected in theirs.items():
        error = np.linalg.norm(ours[key] - expected)
        # Some have no gradient but for rounding, such as the bias of keys.
        assert error <= TOLERANCE * np.linalg.norm(expected) + 1e-6 * total, key


@pytest.mark.parametrize("name", ["hubert", "wav2vec2-bert"])
def test_masked_frames_are_those_of_transformers(name):
    config, variables, peer = CONFIGS[name], variables_of(name), peer_of(name)
    inputs, lengths = batch_of(name)
    inputs, lengths = inputs[:1], lengths[:1]
    masked = np.arange(config.frames(inputs.shape[1]))[None] % 5 < 2
    logits = model_of(config).apply(
        variables, inputs, jnp.asarray(lengths), masked=jnp.asarray(masked)
    )
    backbone = getattr(peer, peer.base_model_prefix)
    with torch.no_grad():
        hidden = backbone(torch.tensor(inputs), mask_time_indices=torch.tensor(masked))
        theirs = peer.lm_head(hidden.last_hidden_state).numpy()
    np.testing.assert_allclose(jnp.asarray(logits), theirs, atol=TOLERANCE * np.abs(theirs).max())
