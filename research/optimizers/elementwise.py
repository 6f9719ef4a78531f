"""Entries of optimizers that treat every coordinate alike, wherever it is."""

from collections.abc import Mapping

import optax
from optax import contrib

from research.optimizers.adan import adan
from research.optimizers.cautious import cautious
from research.optimizers.entry import Optimizer, StateSize
from research.optimizers.rprop import rprop
from research.optimizers.spaces import (
    ADAM_RATE,
    BETA1,
    BETA2,
    EPSILON,
    MOMENTUM,
    SIGN_RATE,
    WEIGHT_DECAY,
    Range,
)
from research.optimizers.variance_reduction import scale_by_mars

_ADAM = {"learning_rate": ADAM_RATE, "b1": BETA1, "b2": BETA2, "eps": EPSILON}
_ADAMW = {"learning_rate": ADAM_RATE, "b1": BETA1, "b2": BETA2, "weight_decay": WEIGHT_DECAY}
_LION = {
    "learning_rate": SIGN_RATE,
    "b1": BETA1,
    "b2": Range(0.95, 0.999, below_one=True),
    "weight_decay": Range(1e-3, 10.0),
}


def momentum(learning_rate, momentum=0.9):
    """Heavy ball: m <- momentum m + g, x <- x - learning_rate m."""
    return optax.sgd(learning_rate, momentum=momentum)


def nesterov(learning_rate, momentum=0.9):
    """Likewise, x <- x - learning_rate (g + momentum m)."""
    return optax.sgd(learning_rate, momentum=momentum, nesterov=True)


def decoupled(direction, learning_rate, weight_decay):
    """Weight decay beside a direction u: x <- x - learning_rate (u + weight_decay x)."""
    return optax.chain(
        direction,
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def _mars(learning_rate, b1=0.95, b2=0.99, gamma=0.025, weight_decay=0.0, eps=1e-8):
    return decoupled(scale_by_mars(b1, b2, gamma, eps), learning_rate, weight_decay)


def _cautious_adamw(learning_rate, b1=0.9, b2=0.999, weight_decay=0.0):
    return decoupled(cautious(optax.scale_by_adam(b1, b2)), learning_rate, weight_decay)


def _cautious_lion(learning_rate, b1=0.9, b2=0.99, weight_decay=0.0):
    return decoupled(cautious(optax.scale_by_lion(b1, b2)), learning_rate, weight_decay)


ENTRIES: Mapping[str, Optimizer] = {
    "sgd": Optimizer(
        optax.sgd,
        {"learning_rate": Range(1e-3, 10.0)},
        "Robbins & Monro, A Stochastic Approximation Method, 1951",
    ),
    "momentum": Optimizer(
        momentum,
        {"learning_rate": Range(1e-4, 1.0), "momentum": MOMENTUM},
        "Polyak, Some methods of speeding up the convergence of iteration methods, 1964",
        StateSize(1),
    ),
    "nesterov": Optimizer(
        nesterov,
        {"learning_rate": Range(1e-4, 1.0), "momentum": MOMENTUM},
        "Sutskever et al., On the importance of initialization and momentum, ICML 2013",
        StateSize(1),
    ),
    "adagrad": Optimizer(
        optax.adagrad,
        {"learning_rate": Range(1e-3, 1.0)},
        "Duchi, Hazan & Singer, Adaptive Subgradient Methods, JMLR 2011",
        StateSize(1),
    ),
    "rmsprop": Optimizer(
        optax.rmsprop,
        {
            "learning_rate": ADAM_RATE,
            "decay": Range(0.9, 0.999, below_one=True),
            "eps": EPSILON,
        },
        "Tieleman & Hinton, Lecture 6.5: RMSprop, 2012",
        StateSize(1),
    ),
    "adam": Optimizer(
        optax.adam,
        _ADAM,
        "Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015",
        StateSize(2),
    ),
    "adamw": Optimizer(
        optax.adamw,
        _ADAMW,
        "Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019",
        StateSize(2),
    ),
    "rprop": Optimizer(
        rprop,
        {"learning_rate": Range(1e-5, 1e-1)},
        "Riedmiller & Braun, A Direct Adaptive Method for Faster Backpropagation Learning, 1993",
        StateSize(2),
    ),
    "adadelta": Optimizer(
        optax.adadelta,
        {
            "learning_rate": Range(1e-2, 10.0),
            "rho": Range(0.9, 0.999, below_one=True),
            "eps": Range(1e-8, 1e-3),
        },
        "Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012",
        StateSize(2),
    ),
    "adamax": Optimizer(
        optax.adamax,
        {"learning_rate": ADAM_RATE, "b1": BETA1, "b2": BETA2},
        "Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015",
        StateSize(2),
    ),
    "nadam": Optimizer(
        optax.nadam,
        _ADAM,
        "Dozat, Incorporating Nesterov Momentum into Adam, ICLR workshop 2016",
        StateSize(2),
    ),
    "nadamw": Optimizer(
        optax.nadamw,
        _ADAMW,
        "Dahl et al., Benchmarking Neural Network Training Algorithms, 2023",
        StateSize(2),
    ),
    "amsgrad": Optimizer(
        optax.amsgrad,
        _ADAM,
        "Reddi, Kale & Kumar, On the Convergence of Adam and Beyond, ICLR 2018",
        StateSize(3),
    ),
    "radam": Optimizer(
        optax.radam,
        _ADAM,
        "Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020",
        StateSize(2),
    ),
    "yogi": Optimizer(
        optax.yogi,
        _ADAM,
        "Zaheer et al., Adaptive Methods for Nonconvex Optimization, NeurIPS 2018",
        StateSize(2),
    ),
    "adabelief": Optimizer(
        optax.adabelief,
        _ADAM | {"eps": Range(1e-16, 1e-6)},
        "Zhuang et al., AdaBelief Optimizer, NeurIPS 2020",
        StateSize(2),
    ),
    "acprop": Optimizer(
        contrib.acprop,
        _ADAM | {"eps": Range(1e-16, 1e-6)},
        "Zhuang et al., Momentum Centering and Asynchronous Update, NeurIPS 2021",
        StateSize(2),
    ),
    "adopt": Optimizer(
        contrib.adopt,
        {"learning_rate": ADAM_RATE, "b1": BETA1, "b2": BETA2, "eps": Range(1e-8, 1e-3)},
        "Taniguchi et al., ADOPT: Modified Adam Can Converge with Any beta2, NeurIPS 2024",
        StateSize(2),
    ),
    "adan": Optimizer(
        adan,
        {
            "learning_rate": ADAM_RATE,
            "b1": Range(0.9, 0.99, below_one=True),
            "b2": Range(0.8, 0.98, below_one=True),
            "b3": Range(0.95, 0.999, below_one=True),
            "weight_decay": WEIGHT_DECAY,
        },
        "Xie et al., Adan: Adaptive Nesterov Momentum Algorithm, 2022",
        StateSize(4),
        schedule_inside=True,
    ),
    "ademamix": Optimizer(
        contrib.ademamix,
        {
            "learning_rate": ADAM_RATE,
            "b2": BETA2,
            "b3": Range(0.99, 0.9999, below_one=True),
            "alpha": Range(1.0, 10.0),
            "weight_decay": WEIGHT_DECAY,
        },
        "Pagliardini, Ablin & Grangier, The AdEMAMix Optimizer, ICLR 2025",
        StateSize(3),
    ),
    "simplified_ademamix": Optimizer(
        contrib.simplified_ademamix,
        {
            "learning_rate": Range(1e-6, 1e-2),
            "b1": Range(0.9, 0.999, below_one=True),
            "b2": BETA2,
            "alpha": Range(1.0, 100.0),
            "weight_decay": WEIGHT_DECAY,
        },
        "Morwani et al., Connections between Schedule-Free Optimizers, AdEMAMix, and More, 2025",
        StateSize(2),
    ),
    "madgrad": Optimizer(
        contrib.madgrad,
        {"learning_rate": Range(1e-4, 1.0), "momentum": MOMENTUM, "eps": Range(1e-8, 1e-3)},
        "Defazio & Jelassi, Adaptivity without Compromise, JMLR 2022",
        StateSize(3),
        schedule_inside=True,
    ),
    "mars": Optimizer(
        _mars,
        {
            "learning_rate": ADAM_RATE,
            "b1": Range(0.8, 0.98, below_one=True),
            "b2": BETA2,
            "gamma": Range(1e-3, 0.1),
            "weight_decay": WEIGHT_DECAY,
        },
        "Yuan et al., MARS: Unleashing the Power of Variance Reduction, 2024",
        StateSize(3),
    ),
    "sign_sgd": Optimizer(
        optax.sign_sgd,
        {"learning_rate": SIGN_RATE},
        "Bernstein et al., signSGD: Compressed Optimisation, ICML 2018",
    ),
    "signum": Optimizer(
        optax.signum,
        {"learning_rate": SIGN_RATE, "beta": MOMENTUM},
        "Bernstein et al., signSGD: Compressed Optimisation, ICML 2018",
        StateSize(1),
    ),
    "lion": Optimizer(
        optax.lion,
        _LION,
        "Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023",
        StateSize(1),
    ),
    "cautious_adamw": Optimizer(
        _cautious_adamw,
        _ADAMW,
        "Liang et al., Cautious Optimizers: Improving Training with One Line of Code, 2024",
        StateSize(2),
    ),
    "cautious_lion": Optimizer(
        _cautious_lion,
        _LION,
        "Liang et al., Cautious Optimizers: Improving Training with One Line of Code, 2024",
        StateSize(1),
    ),
}
