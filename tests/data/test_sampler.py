import numpy as np
import pytest

from research.data.sampler import batch_indices
from research.errors import ConfigError


def stream(seed: int, size: int, batch_size: int, steps: int) -> np.ndarray:
    return np.concatenate([batch_indices(seed, step, size, batch_size) for step in range(steps)])


@pytest.mark.parametrize(("size", "batch_size"), [(10, 10), (10, 4), (7, 3), (5, 13), (1, 1)])
def test_every_epoch_is_a_permutation(size: int, batch_size: int) -> None:
    epochs = 4
    steps = -(-epochs * size // batch_size)
    orders = stream(3, size, batch_size, steps)[: epochs * size].reshape(epochs, size)
    assert (np.sort(orders, axis=1) == np.arange(size)).all()


def test_the_stream_does_not_depend_on_how_it_is_cut_into_batches() -> None:
    assert (stream(5, 11, 4, 11) == stream(5, 11, 11, 4)).all()


def test_a_batch_depends_on_its_step_alone() -> None:
    later = batch_indices(seed=2, step=1000, size=97, batch_size=8)
    stream(2, 97, 8, 5)
    assert (batch_indices(seed=2, step=1000, size=97, batch_size=8) == later).all()


def test_seeds_and_epochs_differ() -> None:
    orders = stream(0, 50, 50, 3)
    assert len({tuple(order) for order in orders.reshape(3, 50)}) == 3
    assert (stream(0, 50, 50, 1) != stream(1, 50, 50, 1)).any()


def test_changing_a_batch_does_not_change_the_next_one() -> None:
    batch = batch_indices(seed=1, step=0, size=6, batch_size=6)
    kept = batch.copy()
    batch[:] = 0
    assert (batch_indices(seed=1, step=0, size=6, batch_size=6) == kept).all()


def test_every_order_of_three_is_about_equally_likely() -> None:
    orders = stream(9, 3, 3, 1200).reshape(-1, 3)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 150  # expected 200, standard deviation 13


@pytest.mark.parametrize(
    ("seed", "step", "size", "batch_size"),
    [(-1, 0, 4, 2), (2**64, 0, 4, 2), (0, -1, 4, 2), (0, 0, 0, 2), (0, 0, 4, 0)],
)
def test_arguments_out_of_range(seed: int, step: int, size: int, batch_size: int) -> None:
    with pytest.raises(ConfigError, match=r"must be in|needs"):
        batch_indices(seed, step, size, batch_size)


def test_the_largest_seed_and_a_far_step() -> None:
    batch = batch_indices(2**64 - 1, 2**40, 1000, 64)
    assert batch.min() >= 0
    assert batch.max() < 1000
