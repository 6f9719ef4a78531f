"""Checkpoints: bit-exact, damage noticed, nothing lost."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import checkpoint
from research.errors import RunError
from research.train import State, init_state

OPTIMIZER = optax.adam(0.1)


def make_state(step):
    rng = np.random.default_rng(step)
    params = {
        "w": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32),
        "h": jnp.asarray(rng.normal(size=5), jnp.bfloat16),
    }
    _, opt_state = OPTIMIZER.update(params, OPTIMIZER.init(params), params)
    return State(jnp.int32(step), params, opt_state)


LIKE = init_state(jax.tree.map(jnp.zeros_like, make_state(0).params), OPTIMIZER)
KEY = jax.random.key(0)


def same_bits(first, second):
    leaves = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in leaves)


def restore(directory):
    restored = checkpoint.restore_latest(directory, LIKE, KEY)
    assert restored is not None
    return restored


def test_everything_comes_back_bit_for_bit(tmp_path):
    state, key = make_state(7), jax.random.key(42)
    checkpoint.save(tmp_path, state, key)
    restored, restored_key = restore(tmp_path)
    assert same_bits(jax.tree.map(np.asarray, state), jax.tree.map(np.asarray, restored))
    assert (jax.random.bits(key, (4,)) == jax.random.bits(restored_key, (4,))).all()


def test_typed_keys_within_the_optimizer_come_back(tmp_path):
    """As optax's transformations that add noise keep them."""
    for state_key in (jax.random.key(3), jax.random.key(3, impl="rbg")):
        noisy = optax.add_noise(0.1, 0.5, state_key)
        state = init_state({"w": jnp.ones(3)}, noisy)
        folder = tmp_path / str(jax.random.key_impl(state_key))
        checkpoint.save(folder, state, KEY)
        restored = checkpoint.restore_latest(folder, init_state({"w": jnp.zeros(3)}, noisy), KEY)
        assert restored is not None
        update = jax.jit(noisy.update)
        expected, _ = update(state.params, state.opt_state)
        given, _ = update(restored[0].params, restored[0].opt_state)
        assert (expected["w"] == given["w"]).all()


def test_steps_that_cannot_be_restored_take_no_places(tmp_path):
    """Killed while saving at another cadence, twice: the last whole step is still there."""
    for step in (10, 20):
        checkpoint.save(tmp_path, make_state(step), KEY)
    for step in (30, 35):
        checkpoint.save(tmp_path, make_state(step), KEY)
        (tmp_path / f"sha256-{step}.json").unlink()
        assert int(restore(tmp_path)[0].step) == 20
    checkpoint.save(tmp_path, make_state(40), KEY)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["20", "40"]


def test_another_training_does_not_pass_for_the_one_that_is_there(tmp_path):
    checkpoint.save(tmp_path, make_state(5), KEY)
    checkpoint.save(tmp_path, make_state(5), KEY)
    other = make_state(6)._replace(step=jnp.int32(5))
    with pytest.raises(RunError, match="a folder of its own"):
        checkpoint.save(tmp_path, other, KEY)
    assert same_bits(restore(tmp_path)[0], make_state(5))


def test_a_compiled_step_serves_what_is_restored(tmp_path):
    """Restored arrays bound to a device would be another program, compiled again."""
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state))
    checkpoint.save(tmp_path, make_state(1), KEY)
    text = [step.lower(state).as_text() for state in (LIKE, restore(tmp_path)[0])]
    assert text[0] == text[1]
    device = jax.devices()[0]
    bound = checkpoint.restore_latest(tmp_path, jax.device_put(LIKE, device), KEY)
    assert bound is not None
    assert all(leaf.committed for leaf in jax.tree.leaves(bound[0]))


def test_nothing_there_is_none(tmp_path):
    assert checkpoint.restore_latest(tmp_path / "absent", LIKE, KEY) is None
    (tmp_path / "empty").mkdir()
    assert checkpoint.restore_latest(tmp_path / "empty", LIKE, KEY) is None


def test_the_last_two_are_kept_with_their_manifests(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, make_state(step), KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2",
        "3",
        "sha256-2.json",
        "sha256-3.json",
    ]


def test_a_flipped_bit_falls_back_to_the_step_before(tmp_path, caplog):
    for step in (1, 2):
        checkpoint.save(tmp_path, make_state(step), KEY)
    victim = max(
        (path for path in (tmp_path / "2").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    with caplog.at_level(logging.WARNING):
        restored, _ = restore(tmp_path)
    assert int(restored.step) == 1
    assert "damaged" in caplog.text
    checkpoint.save(tmp_path, make_state(2), KEY)  # made anew, and good again
    assert int(restore(tmp_path)[0].step) == 2


def test_a_kill_before_the_manifest_falls_back(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, make_state(step), KEY)
    (tmp_path / "sha256-2.json").unlink()
    assert int(restore(tmp_path)[0].step) == 1
    (tmp_path / "sha256-1.json").write_text('{"cut": ')
    assert checkpoint.restore_latest(tmp_path, LIKE, KEY) is None


def test_manifest_lists_every_file(tmp_path):
    checkpoint.save(tmp_path, make_state(1), KEY)
    files = {
        str(path.relative_to(tmp_path / "1"))
        for path in (tmp_path / "1").rglob("*")
        if path.is_file()
    }
    assert set(json.loads((tmp_path / "sha256-1.json").read_text())["sha256"]) == files


def test_an_unwritable_place_is_a_clear_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(RunError, match="must be written to"):
        checkpoint.save(blocked / "run", make_state(1), KEY)


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    checkpoint.save(tmp_path, make_state(1), KEY)
    other = init_state({"w": jnp.zeros((4, 4)), "h": jnp.zeros(5, jnp.bfloat16)}, OPTIMIZER)
    with pytest.raises(RunError, match="--fresh"):
        checkpoint.restore_latest(tmp_path, other, KEY)


def damage(directory, step):
    path = next(path for path in (directory / str(step)).rglob("*") if path.stat().st_size > 40)
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)


def test_a_training_that_began_anew_after_damage_is_saved(tmp_path):
    for step in (20, 30):
        checkpoint.save(tmp_path, make_state(step), KEY)
        damage(tmp_path, step)
    assert checkpoint.restore_latest(tmp_path, LIKE, KEY) is None
    checkpoint.save(tmp_path, make_state(10), KEY)
    assert int(restore(tmp_path)[0].step) == 10
    checkpoint.save(tmp_path, make_state(20), KEY)
    assert int(restore(tmp_path)[0].step) == 20


def test_a_step_before_one_that_is_there_is_refused(tmp_path):
    checkpoint.save(tmp_path, make_state(30), KEY)
    with pytest.raises(RunError, match=r"received step 10, and .*30 is there"):
        checkpoint.save(tmp_path, make_state(10), KEY)
    assert int(restore(tmp_path)[0].step) == 30


def test_what_cannot_be_saved_is_named(tmp_path):
    params = {"w": jnp.zeros((0, 3))}
    with pytest.raises(RunError, match=r"must have an element; received .*'w'.* \(0, 3\) float32"):
        checkpoint.save(tmp_path, init_state(params, OPTIMIZER), KEY)


def test_shapes_say_what_to_restore(tmp_path):
    state = make_state(3)
    checkpoint.save(tmp_path, state, KEY)
    restored = checkpoint.restore_latest(tmp_path, jax.eval_shape(lambda: LIKE), KEY)
    assert restored is not None
    assert same_bits(jax.tree.map(np.asarray, state), jax.tree.map(np.asarray, restored[0]))
