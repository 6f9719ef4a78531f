"""MNIST-1D is what its author's program makes, and the same everywhere."""

import hashlib

import numpy as np
from scipy.spatial.distance import cdist

from research.data.mnist1d import load_mnist1d


def test_it_is_the_published_data_set():
    """First values and labels that the author's own program makes, rounded likewise."""
    train, test = load_mnist1d()
    first = [-0.332, -0.4719, -0.7787, -1.0097, -0.8824]
    np.testing.assert_allclose(train.values[0, :5], first, atol=1e-6)
    assert train.digits[:5].tolist() == [2, 6, 4, 5, 6]
    digest = hashlib.sha256()
    for part in (train, test):
        digest.update(part.values.tobytes() + part.digits.tobytes())
    assert digest.hexdigest().startswith("7fb1935f5c0aac8c")


def test_it_is_normalised_balanced_and_harder_than_its_nearest_neighbours():
    train, test = load_mnist1d()
    values = np.concatenate([train.values, test.values])
    assert abs(values.mean()) < 1e-4
    assert abs(values.std() - 1) < 1e-4
    assert (np.bincount(np.concatenate([train.digits, test.digits])) == 500).all()
    nearest = train.digits[cdist(test.values, train.values).argmin(axis=1)]
    assert 0.2 < np.mean(nearest == test.digits) < 0.9  # far above chance, far from solved
