"""The objectives over label sequences by name, with what each asks of the encoder and of the batch.

All are called in one way, with the weights of the papers:
``find(name).loss(outputs, lengths, labels, label_paddings, blank_id=0)``.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.names import look_up
from research.objectives.ctc import (
    ctc,
    entropy_regularised_ctc,
    focal_ctc,
    label_smoothed_ctc,
    mean_posterior,
    prior_ctc,
)
from research.objectives.ctc_auxiliary import (
    consistency_ctc,
    framewise_cross_entropy,
    intermediate_ctc,
    self_conditioned_ctc,
)
from research.objectives.ctc_terms import Outputs, Paddings, logits_of


class Objective(NamedTuple):
    """An entry of the registry.

    Attributes:
        loss: (outputs, lengths, labels, label_paddings, *, blank_id) -> scalar.
        label: what people call it.
        source: the paper.
        views: how often each utterance passes the encoder in a step, and so what a step costs. With
            2, rows b and b + B / 2 of a batch are one utterance, augmented differently.
        intermediate: whether the encoder must predict between its layers too.
        self_conditioned: whether its later layers must know these predictions.
    """

    loss: Callable[..., Float[Array, ""]]
    label: str
    source: str
    views: int = 1
    intermediate: bool = False
    self_conditioned: bool = False


def batch_prior_ctc(
    outputs: Outputs,
    lengths: Int[Array, " B"],
    labels: Int[Array, "B N"],
    label_paddings: Paddings,
    *,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """``prior_ctc`` with the mean posterior of the batch itself as the prior.

    The authors take that of the epoch before. A batch's own is noisier, and needs nothing kept
    between steps.

    Example:
        >>> args = jnp.zeros((1, 4, 3)), jnp.array([4]), jnp.array([[1, 2]]), jnp.zeros((1, 2))
        >>> prior = jnp.log(jnp.full(3, 1 / 3))
        >>> bool(jnp.isclose(batch_prior_ctc(*args), prior_ctc(*args, log_priors=prior)))
        True
    """
    mean = mean_posterior(jax.lax.stop_gradient(logits_of(outputs)), lengths)
    return prior_ctc(
        outputs, lengths, labels, label_paddings, log_priors=jnp.log(mean), blank_id=blank_id
    )


OBJECTIVES: Mapping[str, Objective] = {
    "ctc": Objective(ctc, "CTC", "Graves et al., ICML 2006"),
    "label_smoothed_ctc": Objective(
        label_smoothed_ctc, "label smoothing", "Kim et al., Interspeech 2018"
    ),
    "entropy_regularised_ctc": Objective(
        entropy_regularised_ctc, "entropy of paths (EnCTC)", "Liu, Jin & Zhang, NeurIPS 2018"
    ),
    "focal_ctc": Objective(focal_ctc, "focal CTC", "Feng, Yao & Zhang, Complexity 2019"),
    "prior_ctc": Objective(batch_prior_ctc, "label priors", "Huang et al., ICASSP 2024"),
    "intermediate_ctc": Objective(
        intermediate_ctc, "InterCTC", "Lee & Watanabe, ICASSP 2021", intermediate=True
    ),
    "self_conditioned_ctc": Objective(
        self_conditioned_ctc,
        "self-conditioned CTC",
        "Nozaki & Komatsu, Interspeech 2021",
        intermediate=True,
        self_conditioned=True,
    ),
    "consistency_ctc": Objective(
        consistency_ctc, "CR-CTC, two views", "Yao et al., ICLR 2025", views=2
    ),
    "framewise_cross_entropy": Objective(
        framewise_cross_entropy, "likeliest path alone", "Zeyer et al., Interspeech 2017"
    ),
}


def find(name: str) -> Objective:
    """The entry of that name.

    Raises:
        ConfigError: no such entry, and the message names the nearest.

    Example:
        >>> find("consistency_ctc").views
        2
    """
    return look_up(OBJECTIVES, name, "objective")
