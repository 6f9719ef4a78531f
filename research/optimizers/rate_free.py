"""Entries of optimizers that find their learning rate, or do without its schedule.

Of the first kind only a factor near one is tuned.
"""

from collections.abc import Mapping

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
    return contrib.prodigy(learning_rate, betas=(b1, b2), weight_decay=weight_decay)


def _dadapt_adamw(learning_rate, b1=0.9, b2=0.999, weight_decay=0.0):
    return contrib.dadapt_adamw(learning_rate, betas=(b1, b2), weight_decay=weight_decay)


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
        evaluated=contrib.schedule_free_eval_params,
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
        evaluated=contrib.schedule_free_eval_params,
    ),
}
