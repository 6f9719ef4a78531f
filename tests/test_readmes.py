"""What the README of a folder lists is there, and what is there is listed."""

import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import kernels

ROOT = Path(__file__).resolve().parent.parent
# Folders whose README says which module is for what.
LISTING = ("kernels", "research/optimizers", "research/speech", "research/stats", "research/sweep")


def readme(folder: str) -> str:
    return (ROOT / folder / "README.md").read_text()


def snippets(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("folder", LISTING)
def test_every_module_of_a_folder_is_in_its_list(folder):
    modules = [p for p in (ROOT / folder).glob("*.py") if not p.name.startswith("__")]
    assert modules
    text = readme(folder)
    assert [path.name for path in modules if f"`{path.name}`" not in text] == []


@pytest.mark.parametrize("folder", LISTING)
def test_every_module_of_a_list_exists(folder):
    named = re.findall(r"^(?:\| |- ).*?(?: \| | holds? |: )", readme(folder), re.MULTILINE)
    files = {name for line in named for name in re.findall(r"`(\w+\.py)`", line)}
    assert files
    assert {name for name in files if not (ROOT / folder / name).exists()} == set()


def test_every_public_operation_is_in_the_readme_of_kernels():
    text = readme("kernels")
    assert [name for name in kernels.__all__ if f"`{name}`" not in text] == []


def test_the_snippet_for_linen_runs():
    (snippet,) = [found for found in snippets(readme("kernels")) if "flax" in found]
    x = jnp.ones((2, 5, 12))
    names: dict = {"x": x, "key": jax.random.key(0), "valid": jnp.arange(5)[None] < 4}
    with jax.numpy_dtype_promotion("standard"):
        exec(snippet, names)
    assert isinstance(names["module"], nn.Module)
    assert names["y"].shape == x.shape


def test_the_snippet_for_sweeps_imports_what_it_names():
    """Plain functions of the reader's own are in comments."""
    for snippet in snippets(readme("research/sweep")):
        used = set(re.findall(r"(?<![.\w])show_progress\b", snippet))
        imported = set(re.findall(r"import .*\b(show_progress)\b", snippet))
        assert used <= imported
