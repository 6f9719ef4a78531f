"""Quadratics: the eigenvalues that are promised, and rates seen in actual runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.workloads import build
from research.workloads.quadratics import (
    DIMENSION,
    LARGEST,
    gradient_descent_rate,
    heavy_ball_rate,
    matrix,
)


def distances(name, rate, steps):
    """|x| before each step of an actual run, from the workload's own loss and start."""
    workload = build(name)
    optimizer = optax.sgd(rate.learning_rate, rate.momentum or None)
    batch = {key: jnp.asarray(value) for key, value in workload.train.items()}

    def run(params):
        def step(carry, _):
            params, state = carry
            gradients = jax.grad(workload.loss)(params, batch, jax.random.key(0))
            updates, state = optimizer.update(gradients, state, params)
            moved = (optax.apply_updates(params, updates), state)
            return moved, jnp.linalg.norm(params["x"])

        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[1]

    return np.asarray(jax.jit(run)(workload.init(jax.random.key(1))), np.float64)


@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_eigenvalues_lie_at_equal_distances_on_a_logarithmic_scale(condition):
    eigenvalues = np.linalg.eigvalsh(matrix(condition))
    assert eigenvalues[-1] == pytest.approx(LARGEST)
    assert eigenvalues[0] == pytest.approx(LARGEST / condition)
    ratios = eigenvalues[1:] / eigenvalues[:-1]
    np.testing.assert_allclose(ratios, condition ** (1 / (DIMENSION - 1)), rtol=1e-6)


def test_no_coordinate_has_a_curvature_of_its_own():
    whole = matrix(1e4)
    coupling = np.abs(whole - np.diag(np.diag(whole))).max(axis=1)
    assert (coupling > 0.05 * np.diag(whole)).all()


def test_gradient_descent_shrinks_the_distance_by_its_factor_each_step():
    rate = gradient_descent_rate(1e2)
    found = distances("quadratic_1e2", rate, 401)
    assert (found <= found[0] * rate.factor ** np.arange(401) * (1 + 1e-3)).all()
    assert (found[400] / found[200]) ** (1 / 200) == pytest.approx(rate.factor, rel=1e-3)


@pytest.mark.parametrize(("name", "condition"), [("quadratic_1e2", 1e2), ("quadratic_1e4", 1e4)])
def test_heavy_ball_shrinks_it_by_its_factor_up_to_the_growth_at_the_edge(name, condition):
    rate = heavy_ball_rate(condition)
    early, late = (round(times * np.sqrt(condition)) for times in (4, 8))
    found = distances(name, rate, late + 1)
    seen = np.log(found[late] / found[early] * (early / late)) / (late - early)
    assert seen == pytest.approx(np.log(rate.factor), rel=0.05)


@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_the_hyperparameters_are_the_best(condition):
    """By the spectral radius of a step, eigenvalue by eigenvalue."""
    eigenvalues = np.linalg.eigvalsh(matrix(condition))

    def radius(learning_rate, momentum):
        steps = [
            np.array([[1 - learning_rate * e + momentum, -momentum], [1.0, 0.0]])
            for e in eigenvalues
        ]
        return max(np.abs(np.linalg.eigvals(step)).max() for step in steps)

    plain, ball = gradient_descent_rate(condition), heavy_ball_rate(condition)
    # A double eigenvalue at the edge is found to half of the digits only.
    for rate, accuracy in ((plain, 1e-9), (ball, 1e-5)):
        best = radius(rate.learning_rate, rate.momentum)
        assert best == pytest.approx(rate.factor, rel=accuracy)
        for scale in (0.9, 1.05):
            assert radius(scale * rate.learning_rate, rate.momentum) > best + 1e-6
    assert radius(ball.learning_rate, ball.momentum**1.1) > ball.factor + 1e-6
    assert radius(ball.learning_rate, ball.momentum**0.9) > ball.factor + 1e-6


def test_the_score_is_zero_at_a_typical_start_and_has_a_floor():
    workload = build("quadratic_1e2")
    starts = [workload.init(jax.random.key(seed)) for seed in range(200)]
    loss = np.mean([workload.measure(start, workload.test)["loss"][0] for start in starts])
    assert np.log10(loss / (np.trace(matrix(1e2)) / 2)) == pytest.approx(0, abs=0.05)
    at_minimum = workload.measure({"x": jnp.zeros(DIMENSION)}, workload.test)
    assert at_minimum["score"][0] == -12
