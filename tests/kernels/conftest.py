"""Kernels are held to strict dtype promotion: nothing widens unless the code says so."""

import jax
import pytest
from bench_cases import small_bench

__all__ = ["small_bench"]


@pytest.fixture(autouse=True)
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield
