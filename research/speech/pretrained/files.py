"""The files of a checkpoint on disk: JSON and safetensors, never anything that runs code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  gives NumPy the type of bfloat16 tensors
import numpy as np

from research.errors import ConfigError, DataError

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """The object in a JSON file, or the default where there is no file.

    Raises:
        DataError: the file is missing and there is no default, or holds no JSON object.
    """
    if not path.is_file():
        if default is None:
            raise DataError(
                f"a checkpoint needs {path.name}, but there is none in {path.parent}; copy it from "
                "where the weights come from"
            )
        return dict(default)
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path} must be JSON, but is not ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object, but holds a {type(value).__name__}")
    return value


def read_tensors(directory: Path) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint, from one file or from those that its index names.

    Raises:
        DataError: there are no weights, only pickled ones, or damaged ones.
        ConfigError: the library ``safetensors`` is not installed.
    """
    if (directory / _WEIGHTS).is_file():
        return read_safetensors(directory / _WEIGHTS)
    if not (directory / _INDEX).is_file():
        pickled = [name for name in _PICKLES if (directory / name).is_file()]
        if pickled:
            raise DataError(
                f"weights must be safetensors, but {directory} has only {pickled[0]}: that is a "
                "pickle, which can run any program when it is read, and is therefore not. Where "
                "torch is installed, transformers' from_pretrained(...).save_pretrained(...) "
                "writes it as safetensors"
            )
        raise DataError(f"a checkpoint needs {_WEIGHTS} or {_INDEX}, but {directory} has neither")
    placed = read_json(directory / _INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise DataError(f"{directory / _INDEX} must say in weight_map where each tensor is")
    tensors = {}
    for name in sorted(set(placed.values())):
        if Path(name).name != name:
            raise DataError(f"{_INDEX} must name files beside it, but names {name!r}")
        if not (directory / name).is_file():
            raise DataError(f"{_INDEX} names {name}, but {directory} has no such file; fetch it")
        tensors |= read_safetensors(directory / name)
    missing = sorted(placed.keys() - tensors.keys())
    if missing:
        raise DataError(f"{_INDEX} promises {missing[0]}, but the files beside it lack it")
    return tensors


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of one file.

    Raises:
        DataError: the file is damaged.
        ConfigError: the library ``safetensors`` is not installed.
    """
    library = _safetensors()
    try:
        with library.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (library.SafetensorError, OSError) as error:
        raise DataError(
            f"{path} must be whole and in the safetensors format, but is not ({error}); fetch it "
            "again"
        ) from error


def write_tensors(directory: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write all tensors to one file that `read_tensors` and transformers read.

    Raises:
        ConfigError: the library ``safetensors`` is not installed.
    """
    _safetensors()
    from safetensors.numpy import save_file

    # transformers refuses a file that does not say which framework its axes are for.
    save_file(dict(tensors), directory / _WEIGHTS, metadata={"format": "pt"})


def _safetensors() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise ConfigError(
            "checkpoints are read and written by the library safetensors, which is not installed; "
            "pip install 'trellis-lab[pretrained]'"
        ) from error
    return safetensors
