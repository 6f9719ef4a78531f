"""Kernels are held to strict dtype promotion: nothing widens unless the code says so."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield
