"""A training step on several devices against one: run by tests/experiments/test_train_ctc.py."""

import dataclasses

import jax
import numpy as np
import optax

from experiments.ctc_recogniser import make_training
from experiments.train_ctc import RECIPES
from research import mesh
from research.data.digit_strings import StringBatch

CONFIG = dataclasses.replace(
    RECIPES["librispeech_100"].config,
    tokeniser="characters",
    width=16,
    layers=1,
    heads=2,
    taps=3,
    precision="float32",
    augment=("mask",),
)


def batch_of(rows: int) -> StringBatch:
    """Noise of several lengths, with labels."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(8000, 16_000, rows).astype(np.int32)
    waveforms = rng.normal(size=(rows, 16_000)).astype(np.float32)
    waveforms *= np.arange(16_000)[None] < lengths[:, None]
    labels = rng.integers(1, 7, (rows, 5)).astype(np.int32)
    return StringBatch(waveforms, lengths, labels, np.zeros((rows, 5), np.float32))


def main() -> None:
    """One step both ways from the same state."""
    recogniser, *_ = make_training(CONFIG, 7)
    batch, key = batch_of(4), jax.random.key(1)
    found = []
    for devices in (jax.devices(), jax.devices()[:1]):
        line = mesh.data_mesh(devices)
        state = mesh.on_each(recogniser.init(jax.random.key(0), batch), line)
        placed = mesh.split_rows(batch, line)
        if line is not None:
            shards = jax.tree.leaves(placed)[0].addressable_shards
            assert {shard.data.shape for shard in shards} == {(2, 16_000)}
        logits = np.asarray(recogniser.evaluate(state.params, placed).logits)
        state, metrics = jax.block_until_ready(recogniser.step(state, placed, key))
        assert len(jax.tree.leaves(state.params)[0].sharding.device_set) == len(devices)
        found.append((state, metrics, logits))
    (several, metrics, heard), (one, expected, heard_by_one) = found
    np.testing.assert_allclose(heard, heard_by_one, atol=1e-4)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], expected["gradient_norm"], rtol=1e-4)
    # Adam's first update is the gradient's sign, noise where that is zero: compare the moments.
    for which in ("mu", "nu"):
        left, right = (
            np.concatenate(
                [np.ravel(x).astype(float) for x in jax.tree.leaves(optax.tree.get(s, which))]
            )
            for s in (several.opt_state, one.opt_state)
        )
        assert 0 < np.linalg.norm(left - right) < 1e-4 * np.linalg.norm(right), which
    print(f"the same step on {len(jax.devices())} devices")


if __name__ == "__main__":
    main()
