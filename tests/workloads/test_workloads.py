"""What every workload promises: it trains, measures each example alone, and its data are fixed."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kernel_matrix import compiled_in_haste

from research.data.sampler import batch_indices
from research.errors import ConfigError
from research.workloads import NAMES, VARIANTS, build, load

ORIGINALS = [name for name in NAMES if name not in VARIANTS]
PUBLISHED = ("fashion", "vit", "digit_strings")  # on data that have to be downloaded
STEPS, BATCH, RATE = 30, 8, 1e-2
LEARNT_BY_HEART = ("digits_mlp", "fashion_lenet", "vit")  # eight examples in so many steps


def rows(examples, indices):
    return {name: jnp.asarray(array[indices]) for name, array in examples.items()}


def shapes(workload):
    params = jax.eval_shape(workload.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf.shape, params)


SLOW_TO_COMPILE = "digit_strings_ctc"


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n == SLOW_TO_COMPILE else n for n in ORIGINALS],
)
def test_it_trains_and_measures_each_example_and_each_model_alone(make, name):
    """Two trainings at once, as a sweep does it; then the same values in other company."""
    workload = make(name)
    size = len(next(iter(workload.train.values())))
    chosen, other = (batch_indices(0, step, size, BATCH) for step in range(2))
    seen = rows(workload.train, chosen)
    optimizer = optax.adamw(RATE)

    def training(key):
        params = workload.init(key)

        def step(carry, _):
            params, state = carry
            gradients = jax.grad(workload.loss)(params, seen, key)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        start = (params, optimizer.init(params))
        (trained, _), _ = jax.lax.scan(step, start, length=STEPS)
        return params, trained

    with compiled_in_haste():
        before, after = jax.jit(jax.vmap(training))(jax.random.split(jax.random.key(0), 2))
        measure = jax.jit(jax.vmap(workload.measure, in_axes=(0, None)))
        first, last = (measure(params, seen) for params in (before, after))
        assert {each.shape for each in last.values()} == {(2, BATCH)}
        assert (np.mean(last["loss"], axis=1) < np.mean(first["loss"], axis=1)).all()
        if name in LEARNT_BY_HEART:
            assert (np.mean(first["score"], axis=1) > 0.5).all()
            assert (np.mean(last["score"], axis=1) < 0.2).all()

        swapped = jax.tree.map(lambda leaf: leaf[::-1], after)
        mixed = rows(workload.train, np.concatenate([other[:-2], chosen[:2]]))
        found = measure(swapped, mixed)
    for what in ("loss", "score"):
        np.testing.assert_allclose(found[what][::-1, -2:], last[what][:, :2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_parts_share_no_example(make, name):
    workload = make(name)
    contents = []
    for part in (workload.train, workload.validation, workload.test):
        sizes = {len(array) for array in part.values()}
        assert len(sizes) == 1
        contents.append({bytes(row) for row in part[next(iter(part))]})
    train, validation, test = contents
    shared = (train & validation) | (train & test) | (validation & test)
    if name == "char_lm":  # rulers of tables occur all over the text
        shared = {row for row in shared if any(chr(symbol + 32).isalnum() for symbol in row)}
    if name.startswith("quadratic") or name == "heavy_tailed":  # training itself is measured
        assert train == validation == test
    else:
        assert not shared


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_in_the_model_only(make, name):
    original, variant = make(VARIANTS[name].split()[0]), make(name)
    if name != "quadratic_1e3":
        for field in ("metric", "steps", "batch_size", "source", "sha256"):
            assert getattr(variant, field) == getattr(original, field)
        for part in ("train", "validation", "test"):
            for key, array in getattr(original, part).items():
                np.testing.assert_array_equal(getattr(variant, part)[key], array)
    if shapes(variant) == shapes(original):
        with compiled_in_haste():
            params = jax.jit(original.init)(jax.random.key(0))
            losses = [
                jax.jit(each.loss)(params, rows(each.train, slice(0, 4)), jax.random.key(1))
                for each in (original, variant)
            ]
        assert abs(losses[0] - losses[1]) > 1e-4
    else:
        assert {"width", "norm"} & {*VARIANTS[name].split()}


@pytest.mark.parametrize("name", [n for n in ORIGINALS if not n.startswith(PUBLISHED)])
def test_the_data_are_those_of_the_target(name, caplog):
    """By their hash; char_lm's text is that of the Python it was set with, or a warning says so."""
    workload = load(name)
    assert np.isfinite(workload.target)
    if name != "char_lm":
        assert not caplog.records
    assert build(name).sha256 == workload.sha256


@pytest.mark.data
@pytest.mark.parametrize("name", [n for n in ORIGINALS if n.startswith(PUBLISHED)])
def test_the_published_data_are_those_of_the_target(name, caplog):
    assert np.isfinite(load(name).target)
    assert not caplog.records


def test_other_data_have_another_hash(make, small_data):
    assert make("fashion_lenet").sha256 == build("fashion_lenet", small_data).sha256
    assert len({make(name).sha256 for name in ("fashion_lenet", "digits_mlp", "gru")}) == 3


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"workload must be one of .*Did you mean 'char_lm'\?"):
        load("charlm")


def test_the_names_are_there_before_jax_is():
    program = "import sys, research.workloads as w; print(len(w.NAMES), 'jax' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [str(len(NAMES)), "False"]
