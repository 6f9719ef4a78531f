"""Version 2 of SGD's and Adam's families: search spaces of which each contains the poorer's.

A richer family that is tuned well cannot lose to one that it contains, except by luck, if its
search space contains the poorer's (Choi et al., "On Empirical Comparisons of Optimizers for Deep
Learning", 2019). In version 1 it does not: Adam's epsilon ends where Adam would become momentum.

    sgd ⊂ momentum ⊂ rmsprop (with momentum)        sgd ⊂ nesterov ⊂ nadam ⊂ nadamw
          momentum ⊂ adam ⊂ adamw

- momentum contains sgd at ``momentum = 0``, which ends its range. ``learning_rate`` is that of a
  steady gradient, learning_rate_of_version_1 / (1 - momentum), so that it means the same in both.
- adam and rmsprop contain momentum at ``eps`` far above every gradient: then u = m / eps. To keep
  the useful learning rates in place while eps varies over ten decades, ``learning_rate`` is the
  step of a coordinate whose gradient is steadily 0.001:

      x <- x - learning_rate (1 + eps / 0.001) m^ / (sqrt(v^) + eps)

  So the point ``eps = 100``, ``learning_rate = 0.001 l``, ``b1 = momentum`` is momentum with l, to
  1 % for gradients below one, once Adam's bias corrections have faded.
- adamw contains adam, to learning_rate 1e-6 of each weight a step, at the lowest ``weight_decay``.
"""

from collections.abc import Mapping

import optax

from research.optimizers import elementwise
from research.optimizers.entry import Optimizer, StateSize
from research.optimizers.spaces import Range

TYPICAL_GRADIENT = 1e-3  # of one coordinate

_DECAY = Range(0.0, 0.999, below_one=True)
_RATE = Range(1e-6, 1e-1)
_EPSILON = Range(1e-8, 1e2)
_ADAM = {
    "learning_rate": _RATE,
    "b1": _DECAY,
    "b2": Range(0.9, 0.9999, below_one=True),
    "eps": _EPSILON,
}
_ADAMW = _ADAM | {"weight_decay": Range(1e-6, 1.0)}
_MOMENTUM = {"learning_rate": Range(1e-3, 1e2), "momentum": _DECAY}


def _momentum(learning_rate, momentum=0.9):
    return elementwise.momentum(learning_rate * (1 - momentum), momentum)


def _nesterov(learning_rate, momentum=0.9):
    return elementwise.nesterov(learning_rate * (1 - momentum), momentum)


def _rmsprop(learning_rate, decay=0.9, eps=1e-8, momentum=0.0):
    return optax.chain(
        optax.scale_by_rms(decay, eps, eps_in_sqrt=False),
        _levelled(eps),
        _momentum(learning_rate, momentum),
    )


def _adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    direction = optax.chain(optax.scale_by_adam(b1, b2, eps), _levelled(eps))
    return elementwise.decoupled(direction, learning_rate, weight_decay)


def _nadam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    adam = optax.scale_by_adam(b1, b2, eps, nesterov=True)
    return elementwise.decoupled(optax.chain(adam, _levelled(eps)), learning_rate, weight_decay)


def _levelled(eps):
    """Makes up for what eps takes away at the typical gradient."""
    return optax.scale(1 + eps / TYPICAL_GRADIENT)


def _second(name, build, space, state=None):
    entry = elementwise.ENTRIES[name]
    return entry._replace(build=build, space=space, state=state or entry.state, version=2)


ENTRIES: Mapping[str, Optimizer] = {
    "momentum": _second("momentum", _momentum, _MOMENTUM),
    "nesterov": _second("nesterov", _nesterov, _MOMENTUM),
    "rmsprop": _second(
        "rmsprop",
        _rmsprop,
        {
            "learning_rate": _RATE,
            "decay": Range(0.9, 0.9999, below_one=True),
            "eps": _EPSILON,
            "momentum": _DECAY,
        },
        StateSize(2),
    ),
    "adam": _second("adam", _adam, _ADAM),
    "adamw": _second("adamw", _adam, _ADAMW),
    "nadam": _second("nadam", _nadam, _ADAM),
    "nadamw": _second("nadamw", _nadam, _ADAMW),
}
