"""The eager torch loop that ``bench_sweep`` measures the sweep engine against.

It is written for speed as such loops go: data in memory, a window's batches drawn at once, the
fused AdamW, no value read back before the end of a window.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.data.sampler import batch_indices
from research.errors import ConfigError
from research.sweep.training import Training
from research.workloads.workload import Workload


def import_torch() -> Any:
    """Torch, with one thread.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ConfigError(
            "this benchmark compares with torch, which must be importable; install it with: "
            "pip install torch"
        ) from error
    torch.set_num_threads(1)
    return torch


def build(torch: Any, params: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """The torch module that computes what the Linen model of these parameters does.

    Args:
        torch: the module.
        params: of ``research.models.mlp.MLP`` or ``research.models.lenet.LeNet``, by layer.
    """
    nn = torch.nn
    convolutions = [layer for name, layer in sorted(params.items()) if name.startswith("Conv")]
    dense = [layer for name, layer in sorted(params.items()) if name.startswith("Dense")]
    layers: list[Any] = []
    for layer in convolutions:
        size, _, inputs, outputs = layer["kernel"].shape
        module = nn.Conv2d(inputs, outputs, size, padding="same")
        _copy(torch, module, layer["kernel"].transpose(3, 2, 0, 1), layer["bias"])
        layers += [module, nn.ReLU(), nn.MaxPool2d(2)]
    layers.append(_ChannelsLast(nn) if convolutions else nn.Flatten())
    for layer in dense:
        module = nn.Linear(*layer["kernel"].shape)
        _copy(torch, module, layer["kernel"].T, layer["bias"])
        layers += [module, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _copy(torch: Any, module: Any, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.array(weight)))
        module.bias.copy_(torch.from_numpy(np.array(bias)))


def _ChannelsLast(nn: Any) -> Any:
    class ChannelsLast(nn.Module):
        """Flatten as the JAX model does: (B, C, H, W) -> (B, H W C)."""

        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1).flatten(1)

    return ChannelsLast()


def train(
    torch: Any, module: Any, workload: Workload, training: Training, windows: int
) -> list[float]:
    """Train for so many windows, with an evaluation after each; the mean loss of each window."""
    hyperparameters, every = training.hyperparameters, training.task.evaluate_every
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=hyperparameters["learning_rate"],
        betas=(hyperparameters["b1"], hyperparameters["b2"]),
        weight_decay=hyperparameters["weight_decay"],
        fused=True,
    )
    splits = {}
    for name in ("train", "validation"):
        arrays = getattr(workload, name)
        images = torch.from_numpy(arrays["x"].transpose(0, 3, 1, 2).copy())
        splits[name] = images, torch.from_numpy(arrays["y"].astype(np.int64))
    (images, labels), (shown, known) = splits["train"], splits["validation"]
    cross_entropy = torch.nn.functional.cross_entropy
    means = []
    for window in range(windows):
        shape = (every, workload.batch_size)
        drawn = batch_indices(training.seed, window, len(labels), shape[0] * shape[1])
        losses = []
        for index in torch.from_numpy(drawn.reshape(shape)):
            loss = cross_entropy(module(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        means.append(float(torch.stack(losses).double().mean()))
        with torch.no_grad():
            logits = module(shown)
            float(cross_entropy(logits, known))
            float((logits.argmax(1) != known).double().mean())
    return means
