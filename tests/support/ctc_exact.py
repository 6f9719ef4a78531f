"""CTC of one row in NumPy and float64, in the log domain, forwards and backwards: an oracle."""

import numpy as np

INFINITY = float("inf")


def shifted(alpha, by):
    """alpha[s - by], which is -inf before the first."""
    return np.concatenate([np.full(by, -INFINITY), alpha])[: len(alpha)]


def alphas(emissions, skips):
    """Log of the sum over paths to each state, after each frame; then all states at the end."""
    alpha = np.full(emissions.shape[1], -INFINITY)
    alpha[0] = 0.0  # a blank before the first frame leads to both first states
    found = []
    for emission in emissions:
        skipped = np.where(skips, shifted(alpha, 2), -INFINITY)
        alpha = np.logaddexp.reduce([alpha, shifted(alpha, 1), skipped]) + emission
        found.append(alpha)
    return np.stack(found) if found else np.zeros((0, emissions.shape[1]))


def row_exactly(logits, valid, labels, blank_id):
    """Loss, occupancy (T, N + 1) and gradient of one row, in float64."""
    frames, count = np.flatnonzero(valid), len(labels)
    x = logits.astype(np.float64)[frames]
    with np.errstate(invalid="ignore", divide="ignore"):
        log_probs = x - np.logaddexp.reduce(x, axis=1, keepdims=True)
        log_probs[np.isneginf(x).all(1)] = -INFINITY
        states = np.full(2 * count + 1, blank_id)
        states[1::2] = labels
        skips = np.zeros(2 * count + 1, bool)
        skips[3::2] = labels[1:] != labels[:-1]
        emissions = log_probs[:, states]
        forward = alphas(emissions, skips)
        # Read backwards it is the same; a way into a state is the way out of another.
        ways_back = np.concatenate([skips[:2], skips[2:][::-1]])
        backward = alphas(emissions[::-1, ::-1], ways_back)[::-1, ::-1] - emissions
        ends = forward[-1, -2:] if len(frames) else np.array([0.0 if count == 0 else -INFINITY])
        loss = -np.logaddexp.reduce(ends)
        shares = np.where(np.isneginf(emissions), 0.0, np.exp(forward + backward + loss))
    occupancy = np.zeros((len(valid), count + 1))
    gradient = np.zeros(logits.shape)
    if np.isfinite(loss):
        shares /= shares.sum(1, keepdims=True)
        occupancy[frames, 0] = shares[:, ::2].sum(1)
        occupancy[frames, 1:] = shares[:, 1::2]
        gradient[frames] = np.exp(log_probs)
        for s, k in enumerate(states):
            gradient[frames, k] -= shares[:, s]
    return loss, occupancy, gradient
