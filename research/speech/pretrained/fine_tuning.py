"""What the training loop needs of a checkpoint: an apply function, and parts that stay as they are.

Axes: B batch, S samples, T frames, K classes.
"""

from collections.abc import Callable, Collection, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from research.errors import ConfigError
from research.speech.pretrained.checkpoint import Checkpoint


class Utterances(NamedTuple):
    """A batch to fine-tune on.

    Attributes:
        waveforms: samples at the rate of the front end, (B, S).
        lengths: valid samples, (B,).
        labels: of the vocabulary, padded on the right, (B, N).
        label_paddings: 0 for a valid label, 1 for a padded one, (B, N).
    """

    waveforms: Float[Array, "B S"]
    lengths: Int[Array, " B"]
    labels: Int[Array, "B N"]
    label_paddings: Float[Array, "B N"]


def make_apply(
    checkpoint: Checkpoint,
) -> Callable[[Any, Utterances, Array], tuple[Float[Array, "B T K"], Int[Array, " B"]]]:
    """A function (params, batch, key) -> (logits, frames) for `research.train.make_train_step`.

    With the dropout of the configuration. Statistics of batch norms stay those of the checkpoint.

    Args:
        checkpoint: whose model and front end to use; training starts from its
            ``variables["params"]``.

    Returns:
        The function. ``ctc(logits, frames, batch.labels, batch.label_paddings,
        blank_id=checkpoint.config.pad_token_id)`` is then the loss.
    """
    model, config = checkpoint.model, checkpoint.config
    fixed = {name: value for name, value in checkpoint.variables.items() if name != "params"}

    def apply(params, batch, key):
        inputs, lengths = checkpoint.front_end(batch.waveforms, batch.lengths)
        variables = {**fixed, "params": params}
        rngs = {"dropout": key}
        logits = model.apply(variables, inputs, lengths, deterministic=False, rngs=rngs)
        return jnp.asarray(logits), config.frames(lengths)

    return apply


def freeze(
    optimizer: optax.GradientTransformation, params: Any, modules: Collection[str]
) -> optax.GradientTransformation:
    """An optimizer that leaves some modules alone, and keeps no state for them.

    Args:
        optimizer: for the other parameters.
        params: of the model; only their names matter.
        modules: names of modules, such as "feature_extractor" of wav2vec2 or HuBERT,
            "subsampling" of Parakeet, or "encoder".

    Returns:
        The optimizer.

    Raises:
        ConfigError: a name that no module has.

    Example:
        >>> import jax.numpy as jnp
        >>> params = {"encoder": {"kernel": jnp.ones(2)}, "lm_head": {"kernel": jnp.ones(2)}}
        >>> optimizer = freeze(optax.sgd(1.0), params, ["encoder"])
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> updates["encoder"]["kernel"].tolist(), updates["lm_head"]["kernel"].tolist()
        ([0.0, 0.0], [-1.0, -1.0])
    """
    paths = [
        {entry.key for entry in path} for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    names = set().union(*paths)
    unknown = sorted(set(modules) - names)
    if unknown:
        raise ConfigError(
            f"modules to freeze must be among {', '.join(sorted(names))}, but got "
            f"{', '.join(unknown)}"
        )
    labels = jax.tree_util.tree_map_with_path(
        lambda path, _: "frozen" if {entry.key for entry in path} & set(modules) else "trained",
        params,
    )
    transforms: dict[Hashable, optax.GradientTransformation] = {
        "trained": optimizer,
        "frozen": optax.set_to_zero(),
    }
    return optax.multi_transform(transforms, labels)
