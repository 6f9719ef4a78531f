"""Entries of optimizers that find their learning rate, or do without its schedule.

Of the first kind only a factor near one is tuned.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from research.optimizers.entry import Optimizer, StateSize
from research.optimizers.spaces import (
    ADAM_RATE,
    BETA1,
    BETA2,
    FACTOR_OF_ITS_OWN_RATE,
    WEIGHT_DECAY,
    Range,
)


def _prodigy(learning_rate, b1=0.9, b2=0.999, weight_decay=0.0):
    return _waiting(contrib.prodigy(learning_rate, betas=(b1, b2), weight_decay=weight_decay))


def _dadapt_adamw(learning_rate, b1=0.9, b2=0.999, weight_decay=0.0):
    built = contrib.dadapt_adamw(learning_rate, betas=(b1, b2), weight_decay=weight_decay)
    return _waiting(built)


def _waiting(inner):
    """Nothing moves, nothing is counted, while all gradients were zero.

    The estimate of the learning rate divides by the sum of gradients; the authors skip the step
    where that is zero, optax's would be NaN from then on.
    """

    def update(updates, state, params=None):
        found, after = inner.update(updates, state, params)
        sums = jax.tree.leaves(after.grad_sum)
        begun = jnp.any(jnp.stack([jnp.any(array != 0) for array in sums]))
        found = jax.tree.map(lambda update: jnp.where(begun, update, 0.0), found)
        return found, optax.tree.where(begun, after, state)

    return optax.GradientTransformation(inner.init, update)


def _mean(state, params):
    """What a schedule-free optimizer evaluates, in the dtype of what it trains."""
    found = contrib.schedule_free_eval_params(state, params)
    return jax.tree.map(lambda mean, trained: mean.astype(trained.dtype), found, params)


_ADAMW = {
    "learning_rate": FACTOR_OF_ITS_OWN_RATE,
    "b1": BETA1,
    "b2": BETA2,
    "weight_decay": WEIGHT_DECAY,
}

ENTRIES: Mapping[str, Optimizer] = {
    "dog": Optimizer(
        contrib.dog,
        {"learning_rate": FACTOR_OF_ITS_OWN_RATE},
        "Ivgi, Hinder & Carmon, DoG is SGD's Best Friend, ICML 2023",
        StateSize(1),
    ),
    "dowg": Optimizer(
        contrib.dowg,
        {"learning_rate": FACTOR_OF_ITS_OWN_RATE},
        "Khaled, Mishchenko & Jin, DoWG Unleashed, NeurIPS 2023",
        StateSize(1),
    ),
    "prodigy": Optimizer(
        _prodigy,
        _ADAMW,
        "Mishchenko & Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner, 2023",
        StateSize(4),
        schedule_inside=True,
    ),
    "dadapt_adamw": Optimizer(
        _dadapt_adamw,
        _ADAMW,
        "Defazio & Mishchenko, Learning-Rate-Free Learning by D-Adaptation, ICML 2023",
        StateSize(3),
        schedule_inside=True,
    ),
    "schedule_free_sgd": Optimizer(
        contrib.schedule_free_sgd,
        {"learning_rate": Range(1e-3, 100.0), "b1": BETA1},
        "Defazio et al., The Road Less Scheduled, NeurIPS 2024",
        StateSize(1),
        schedule_inside=True,
        evaluated=_mean,
    ),
    "schedule_free_adamw": Optimizer(
        contrib.schedule_free_adamw,
        {
            "learning_rate": ADAM_RATE,
            "b1": BETA1,
            "b2": BETA2,
            "weight_decay": WEIGHT_DECAY,
        },
        "Defazio et al., The Road Less Scheduled, NeurIPS 2024",
        StateSize(2),
        schedule_inside=True,
        evaluated=_mean,
    ),
}
