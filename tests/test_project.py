"""What holds for the project as a whole: versions, packaging, constraints, sizes of files."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("experiments", "kernels", "research")
PYTHON_LINES = ("3.11", "3.12", "3.13")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LONGEST_FILE = 400

# Name, exact version, and where a pin is not for every system, which one it is for.
PIN = re.compile(
    r"(?P<name>[a-z0-9]+(-[a-z0-9]+)*)==(?P<version>[0-9][0-9a-z.]*)"
    r"( ; sys_platform == '(?P<system>linux|darwin)')?"
)


def constraints(line: str) -> list[str]:
    return (ROOT / f"constraints-{line}.txt").read_text().splitlines()


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for group in (PROJECT["dependencies"], *extras) for text in group]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_has_the_version_of_the_distribution(package: str) -> None:
    version = importlib.import_module(package).__version__
    assert version == importlib.metadata.version("trellis-lab") == PROJECT["version"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_tree_that_is_not_installed_can_be_used(package: str) -> None:
    statement = (
        "import importlib.metadata as metadata\n"
        "known = metadata.version\n"
        "def version(name):\n"
        "    if name == 'trellis-lab': raise metadata.PackageNotFoundError(name)\n"
        "    return known(name)\n"
        f"metadata.version = version\nimport {package}\n"
        f"print({package}.__version__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert run.stdout == "0+unknown\n"


def test_citation_has_the_version_of_the_distribution() -> None:
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {PROJECT['version']}" in lines


def test_one_sentence_says_everywhere_what_the_package_is() -> None:
    sentence = PROJECT["description"]
    assert f'title: "Trellis: {sentence}"' in (ROOT / "CITATION.cff").read_text().splitlines()
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert readme.startswith(f"# Trellis {sentence}. ")


@pytest.mark.parametrize("package", PACKAGES)
def test_import_names_are_those_of_this_repository(package: str) -> None:
    path = importlib.import_module(package).__file__
    assert path is not None
    assert Path(path).resolve() == ROOT / package / "__init__.py"


def test_no_installed_distribution_brings_a_package_of_our_names() -> None:
    providers = importlib.metadata.packages_distributions()
    others = {
        package: [name for name in providers.get(package, []) if name != "trellis-lab"]
        for package in PACKAGES
    }
    assert others == {package: [] for package in PACKAGES}


@pytest.mark.parametrize("line", PYTHON_LINES)
def test_a_constraints_file_is_exact_pins_and_nothing_else(line: str) -> None:
    pins = [(text, PIN.fullmatch(text)) for text in constraints(line)]
    assert [text for text, pin in pins if pin is None] == []
    keys = [(pin["name"], pin["system"]) for _, pin in pins if pin is not None]
    assert len(keys) == len(set(keys))
    assert "torch" not in dict(keys)
    assert "kernels" not in dict(keys)


@pytest.mark.parametrize("system", ["linux", "darwin"])
@pytest.mark.parametrize("line", PYTHON_LINES)
def test_every_requirement_is_pinned_to_a_version_it_allows(line: str, system: str) -> None:
    environment = {"sys_platform": system, "python_version": line}
    pins = {}
    for text in constraints(line):
        pin = Requirement(text)
        if pin.marker is None or pin.marker.evaluate(environment):
            pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    for requirement in requirements():
        marker: Marker | None = requirement.marker
        if marker is None or marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert requirement.specifier.contains(pins[name]), requirement


def test_the_core_needs_neither_torch_nor_triton() -> None:
    core = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert not core & {"torch", "triton", "jax-triton", "kernels", "transformers"}


@pytest.mark.parametrize(
    "file",
    [
        "Makefile",
        "pyproject.toml",
        ".ci/run",
        *(f"constraints-{line}.txt" for line in PYTHON_LINES),
    ],
)
def test_no_file_of_the_installation_names_an_index(file: str) -> None:
    text = (ROOT / file).read_text()
    assert "://" not in text
    assert not re.search(r"--(extra-)?index|--find-links|PIP_|UV_INDEX|simple/", text)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_longer_than_one_reads(package: str) -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / package).rglob("*.py")
    }
    assert lengths
    assert {path: n for path, n in lengths.items() if n > LONGEST_FILE} == {}


def test_data_on_the_host_does_not_import_jax() -> None:
    """A process that reads data may fork, which JAX's threads do not survive."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "research" / "data").rglob("*.py"))
        if path.stem not in {"image_augment", "__main__"}
    ]
    modules.append("research.speech.audio")
    statements = [f"import {module}" for module in modules]
    statements += [
        "import sys",
        "print(sorted({'jax', 'jaxlib', 'flax', 'optax'} & {*sys.modules}))",
    ]
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(statements)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout == "[]\n"
