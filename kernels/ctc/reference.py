"""The definition: the textbook recursion in the log domain, slow, plain, in any precision.

Right to every order of derivative: where a logarithm or a difference of infinities would give NaN,
its argument is replaced before it is taken. Tests and second derivatives use it.

Axes: B batch, T frames, K classes, N labels, S = 2N + 1 states (blank, label, blank, ..., blank).
"""

import jax
import jax.numpy as jnp

from kernels.precision import wide


def ctc_loss(
    logits, logit_paddings, labels, label_paddings, *, blank_id=0, log_epsilon=None,
    zero_infinity=False,
):  # fmt: skip
    """-log sum over paths that collapse to labels of prod_t softmax(logits[t])[path[t]]: (B,)."""
    del log_epsilon
    loss = recursion(
        log_emissions(
            log_softmax(logits, ~_is_padded(logit_paddings)),
            jnp.where(_is_padded(label_paddings), jnp.zeros((), labels.dtype), labels),
            blank_id,
        ),
        ~_is_padded(logit_paddings),
        labels,
        jnp.sum(~_is_padded(label_paddings), axis=1),
    )
    return jnp.where(jnp.isinf(loss), jnp.zeros_like(loss), loss) if zero_infinity else loss


def log_softmax(logits, valid):
    """Log probabilities in float32 or wider; -inf for all classes where all logits are -inf."""
    x = logits.astype(wide(logits.dtype))
    x = jnp.where(valid[:, :, None], x, jnp.zeros_like(x))  # padding may hold NaN
    largest = jax.lax.stop_gradient(jnp.max(x, axis=2, keepdims=True))
    largest = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
    total = jnp.sum(jnp.exp(x - largest), axis=2, keepdims=True)
    log_total = jnp.log(jnp.where(total == 0, jnp.ones_like(total), total))
    return jnp.where(total == 0, jnp.full_like(x, -jnp.inf), (x - largest) - log_total)


def log_emissions(log_probs, labels, blank_id):
    """Log probability of the blank, then of each label, in each frame: (B, T, 1 + N)."""
    blank = jnp.full((labels.shape[0], 1), blank_id, labels.dtype)
    classes = jnp.concatenate([blank, labels], axis=1)
    return jnp.take_along_axis(log_probs, classes[:, None, :], axis=2, mode="clip")


def recursion(emissions, valid, labels, label_lengths):
    """-log p(labels) of log emissions (B, T, 1 + N): (B,); frames that are not valid are skipped.

    alpha[t, s] = emission[t, s] + log(e^alpha[t-1, s] + e^alpha[t-1, s-1] + e^alpha[t-1, s-2]),
    the last term only into a label that differs from the one before.
    """
    batch, count = labels.shape
    floor = jnp.full((), -jnp.inf, emissions.dtype)
    state = jnp.arange(2 * count + 1)
    is_label = state % 2 == 1
    slot = jnp.where(is_label, state // 2 + 1, 0)
    differs = jnp.concatenate([jnp.ones((batch, 1), bool), labels[:, 1:] != labels[:, :-1]], 1)
    differs = differs[:, :count]
    skips = is_label[None, :] & jnp.pad(jnp.repeat(differs, 2, axis=1), ((0, 0), (0, 1)))

    def step(alpha, frame):
        emission, is_valid = frame
        one = jnp.pad(alpha, ((0, 0), (1, 0)), constant_values=-jnp.inf)[:, :-1]
        two = jnp.pad(alpha, ((0, 0), (2, 0)), constant_values=-jnp.inf)[:, :-2]
        following = emission[:, slot] + _log_add(alpha, one, jnp.where(skips, two, floor))
        return jnp.where(is_valid[:, None], following, alpha), None

    # Before the first frame stands a blank that costs nothing: it leads to both first states.
    start = jnp.full((batch, 2 * count + 1), floor).at[:, 0].set(0.0)
    # Under shard_map a scan starts with what varies over the same axes as what it goes on with.
    start = start + jnp.sum(emissions[:, :0], axis=(1, 2))[:, None]
    frames = (jnp.moveaxis(emissions, 1, 0), jnp.moveaxis(valid, 1, 0))
    alpha, _ = jax.lax.scan(step, start, frames)
    last = 2 * label_lengths.astype(jnp.int32)[:, None]
    ends = jnp.take_along_axis(alpha, jnp.maximum(jnp.concatenate([last, last - 1], 1), 0), axis=1)
    before = jnp.where(last[:, 0] > 0, ends[:, 1], floor)
    return -_log_add(ends[:, 0], before)


def _log_add(*terms):
    """Log of sum_i e^term_i, and -inf where all terms are, without a NaN in any derivative."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.stack(terms), axis=0))
    largest = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
    total = sum(jnp.exp(term - largest) for term in terms)
    none = total == 0
    return jnp.where(none, -jnp.inf, jnp.log(jnp.where(none, 1.0, total)) + largest)


def _is_padded(paddings):
    return jnp.asarray(paddings).astype(bool)
