"""Every workload, on small files where its data are published elsewhere; each is made once."""

import functools

import pytest
from workload_data import write_fashion_mnist, write_spoken_digits

from research.workloads import build, digit_strings_ctc


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_fashion_mnist(folder)
    write_spoken_digits(folder)
    return folder


@pytest.fixture(scope="session")
def make(small_data):
    """Name -> workload without a target."""

    @functools.cache
    def make(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digit_strings_ctc, "SIZES", (128, 16, 16))
            return build(name, small_data)

    return make
