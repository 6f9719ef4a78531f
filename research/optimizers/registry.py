"""The registry of optimizers: a name, an optax constructor of traced numbers, a search space.

Constructors take plain floats or traced scalars, so one compiled step serves every trial. A search
space belongs to the optimizer, not to an experiment, so that every comparison uses the same one.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import optax

from research.optimizers.names import look_up
from research.optimizers.spaces import Range


class Optimizer(NamedTuple):
    """An entry of the registry.

    ``build(learning_rate=..., ...)`` takes the search space's names; ``schedule`` multiplies the
    whole update, so that decoupled weight decay follows the learning rate.
    """

    build: Callable[..., optax.GradientTransformation]
    space: Mapping[str, Range]
    paper: str


_MOMENTUM = Range(0.8, 0.99, below_one=True)
_BETA1 = Range(0.8, 0.98, below_one=True)
_BETA2 = Range(0.95, 0.9999, below_one=True)
_EPSILON = Range(1e-10, 1e-3)


def _momentum(learning_rate, momentum=0.9):
    return optax.sgd(learning_rate, momentum=momentum)


def _nesterov(learning_rate, momentum=0.9):
    return optax.sgd(learning_rate, momentum=momentum, nesterov=True)


OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": Optimizer(
        optax.sgd,
        {"learning_rate": Range(1e-3, 10.0)},
        "Robbins & Monro, A Stochastic Approximation Method, 1951",
    ),
    "momentum": Optimizer(
        _momentum,
        {"learning_rate": Range(1e-4, 1.0), "momentum": _MOMENTUM},
        "Polyak, Some methods of speeding up the convergence of iteration methods, 1964",
    ),
    "nesterov": Optimizer(
        _nesterov,
        {"learning_rate": Range(1e-4, 1.0), "momentum": _MOMENTUM},
        "Sutskever et al., On the importance of initialization and momentum, ICML 2013",
    ),
    "adagrad": Optimizer(
        optax.adagrad,
        {"learning_rate": Range(1e-3, 1.0)},
        "Duchi, Hazan & Singer, Adaptive Subgradient Methods, JMLR 2011",
    ),
    "rmsprop": Optimizer(
        optax.rmsprop,
        {
            "learning_rate": Range(1e-5, 1e-1),
            "decay": Range(0.9, 0.999, below_one=True),
            "eps": _EPSILON,
        },
        "Tieleman & Hinton, Lecture 6.5: RMSprop, 2012",
    ),
    "adam": Optimizer(
        optax.adam,
        {"learning_rate": Range(1e-5, 1e-1), "b1": _BETA1, "b2": _BETA2, "eps": _EPSILON},
        "Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015",
    ),
    "adamw": Optimizer(
        optax.adamw,
        {
            "learning_rate": Range(1e-5, 1e-1),
            "b1": _BETA1,
            "b2": _BETA2,
            "weight_decay": Range(1e-4, 1.0),
        },
        "Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019",
    ),
}


def find(name: str) -> Optimizer:
    """The registry's entry of that name.

    Raises:
        ConfigError: no such entry; the message names the nearest.

    Example:
        >>> sorted(find("momentum").space)
        ['learning_rate', 'momentum']
    """
    return look_up(OPTIMIZERS, name, "optimizer")
