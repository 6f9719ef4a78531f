"""The files of a checkpoint on disk: JSON and safetensors, never anything that runs code."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import ml_dtypes  # noqa: F401  gives NumPy the type of bfloat16 tensors
import numpy as np

from research.errors import ConfigError, DataError

_WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
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
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} must be JSON, but is not ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object, but holds a {type(value).__name__}")
    return value


def read_text(path: Path) -> str:
    """The text in a file.

    Raises:
        DataError: the file cannot be read, or is not text.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} must be readable UTF-8 text, but is not ({error}); copy it from where the "
            "weights come from"
        ) from error


def typed(value: Any, kind: Any, name: str, *, least: int = 1) -> Any:
    """A value from a JSON file as a field of that type takes it.

    Args:
        value: what the file has.
        kind: int, float, bool, str, a tuple of one of them, or one of these or None.
        name: of the value and its file, for the message.
        least: the smallest whole number; other numbers are from 0 on.

    Returns:
        The value, a list as a tuple.

    Raises:
        DataError: it is of another type, or a number too small or not finite.

    Example:
        >>> typed([10, 3], tuple[int, ...], "conv_kernel in config.json")
        (10, 3)
    """
    options = get_args(kind) if NoneType in get_args(kind) else (kind,)
    if value is None and NoneType in options:
        return None
    kind = options[0]
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        (item,) = {*get_args(kind)} - {...}
        return tuple(typed(each, item, f"all of {name}", least=least) for each in value)
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    wanted, right = {
        int: (f"a whole number from {least} on", isinstance(number, int) and number >= least),
        float: ("a finite number from 0 on", 0 <= number < math.inf),
        bool: ("true or false", isinstance(value, bool)),
        str: ("a text", isinstance(value, str)),
    }.get(kind, ("a list", False))
    if not right:
        raise DataError(
            f"{name} must be {wanted}, but is {value!r}; copy the file from where the weights come "
            "from"
        )
    return value


def read_tensors(directory: Path) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint, from one file or from those that its index names.

    Raises:
        DataError: there are no weights, only pickled ones, or damaged ones.
        ConfigError: the library ``safetensors`` is not installed.
    """
    if (directory / _WEIGHTS).is_file():
        return read_safetensors(directory / _WEIGHTS)
    if not (directory / INDEX).is_file():
        pickled = [name for name in _PICKLES if (directory / name).is_file()]
        if pickled:
            raise DataError(
                f"weights must be safetensors, but {directory} has only {pickled[0]}: that is a "
                "pickle, which can run any program when it is read, and is therefore not. Where "
                "torch is installed, transformers' from_pretrained(...).save_pretrained(...) "
                "writes it as safetensors"
            )
        raise DataError(f"a checkpoint needs {_WEIGHTS} or {INDEX}, but {directory} has neither")
    placed = read_json(directory / INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(map(_is_text, placed.values())):
        raise DataError(
            f"{directory / INDEX} must say in weight_map in which file each tensor is, but does "
            "not; fetch it again"
        )
    tensors = {}
    for name in sorted(set(placed.values())):
        if Path(name).name != name:
            raise DataError(f"{INDEX} must name files beside it, but names {name!r}")
        if not (directory / name).is_file():
            raise DataError(f"{INDEX} names {name}, but {directory} has no such file; fetch it")
        tensors |= read_safetensors(directory / name)
    missing = sorted(placed.keys() - tensors.keys())
    if missing:
        raise DataError(f"{INDEX} promises {missing[0]}, but the files beside it lack it")
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


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _safetensors() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise ConfigError(
            "checkpoints are read and written by the library safetensors, which is not installed; "
            "pip install 'trellis-lab[pretrained]'"
        ) from error
    return safetensors
