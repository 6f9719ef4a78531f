"""Optimizers of other people, for tests/optimizers/test_parity.py: each as an entry is set there.

They are in a folder of their own where ``make test-all`` has installed them (tests/conftest.py).
The table can be read without them. Everything is in float64. Where a peer casts to less,
``lifted`` replaces the cast.
"""
# pyright: reportMissingImports=false

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np


class _Module:
    """A module that is imported when something in it is used."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # what looks for doctests asks
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


torch = _Module("torch")
prodigyopt, schedulefree = _Module("prodigyopt"), _Module("schedulefree")
_O, _P = _Module("torch.optim"), _Module("pytorch_optimizer")

ALL = ("matrix", "vector", "scalar")
MATRIX = ("matrix",)


class Peer(NamedTuple):
    """An optimizer of the registry and its peer, at the same hyperparameters.

    ``make`` takes torch parameters; ``parameters`` are the names of those that both take.
    """

    hyperparameters: Mapping[str, float]
    make: Callable[[list[Any]], Any]
    parameters: tuple[str, ...] = ALL
    transposed: bool = False  # torch's matrices are (outputs, inputs)


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Peers compute in float64 what they would compute in bfloat16 or float32."""
    torch = importlib.import_module("torch")  # not the stand-in, to be patched
    psgd = importlib.import_module("pytorch_optimizer.optimizer.psgd")
    normuon = importlib.import_module("pytorch_optimizer.optimizer.muon.normuon")
    orthogonalise = normuon.zero_power_via_newton_schulz_5

    def exactly(matrix, **options):
        return orthogonalise(matrix, dtype=matrix.dtype, **options)

    def divided(x, a):
        return torch.linalg.solve_triangular(a, x, upper=True, left=False)

    usual = torch.get_default_dtype()
    with (
        contextlib.ExitStack() as after,
        mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor.clone()),
        mock.patch.object(normuon, "zero_power_via_newton_schulz_5", exactly),
        mock.patch.object(psgd, "solve_triangular_right", divided),
        mock.patch.object(torch, "randn_like", _Noise()),
    ):
        after.callback(torch.set_default_dtype, usual)
        torch.set_default_dtype(torch.float64)
        yield


class _Noise:
    """The draws of scale_by_kron, one for each of its updates."""

    def __init__(self):
        self.count = 0

    def __call__(self, tensor, dtype):
        self.count += 1
        key = jax.random.fold_in(jax.random.key(0), self.count)
        draw = jax.random.normal(key, tuple(tensor.shape), np.float64)
        return torch.tensor(np.asarray(draw), dtype=dtype)


def trajectory(
    peer: Peer, start: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The parameters after each step of the peer: (T, ...) for gradients (T, ...)."""

    def turned(array):
        return array.T if peer.transposed else array

    steps = {name: [] for name in peer.parameters}
    with lifted():
        params = {n: torch.nn.Parameter(torch.tensor(turned(start[n]))) for n in peer.parameters}
        optimizer = peer.make(list(params.values()))
        if hasattr(optimizer, "train"):
            optimizer.train()  # of schedulefree: y, not x
        for step in range(len(gradients[peer.parameters[0]])):
            for name, param in params.items():
                param.grad = torch.tensor(turned(gradients[name][step]))
            optimizer.step()
            for name, param in params.items():
                steps[name].append(turned(param.detach().numpy().copy()))
    return {name: np.stack(values) for name, values in steps.items()}


_BETAS = (0.9, 0.99)
_RATE = {"learning_rate": 0.01}
_ADAM = _RATE | {"b1": 0.9, "b2": 0.99, "eps": 1e-8}
_ADAMW = _RATE | {"b1": 0.9, "b2": 0.99, "weight_decay": 0.1}
_PLAIN = _RATE | {"b1": 0.9, "b2": 0.99, "weight_decay": 0.0}

PEERS: dict[str, Peer] = {
    "sgd": Peer(_RATE, lambda p: _O.SGD(p, 0.01)),
    "momentum": Peer(_RATE | {"momentum": 0.9}, lambda p: _O.SGD(p, 0.01, momentum=0.9)),
    "nesterov": Peer(
        _RATE | {"momentum": 0.9}, lambda p: _O.SGD(p, 0.01, momentum=0.9, nesterov=True)
    ),
    "adagrad": Peer(_RATE, lambda p: _O.Adagrad(p, 0.01, initial_accumulator_value=0.1, eps=0)),
    "rmsprop": Peer(
        _RATE | {"decay": 0.9, "eps": 1e-30}, lambda p: _O.RMSprop(p, 0.01, 0.9, eps=1e-15)
    ),
    "adam": Peer(_ADAM, lambda p: _O.Adam(p, 0.01, _BETAS)),
    "adamw": Peer(_ADAMW, lambda p: _O.AdamW(p, 0.01, _BETAS, weight_decay=0.1)),
    "rprop": Peer(_RATE, lambda p: _O.Rprop(p, 0.01)),
    "adadelta": Peer(
        {"learning_rate": 1.0, "rho": 0.9, "eps": 1e-6}, lambda p: _O.Adadelta(p, 1.0)
    ),
    "adamax": Peer(_RATE | {"b1": 0.9, "b2": 0.99}, lambda p: _O.Adamax(p, 0.01, _BETAS, eps=1e-8)),
    "nadam": Peer(_ADAM, lambda p: _O.NAdam(p, 0.01, _BETAS, momentum_decay=1e6)),
    "nadamw": Peer(
        _ADAMW,
        lambda p: _O.NAdam(
            p, 0.01, _BETAS, momentum_decay=1e6, weight_decay=0.1, decoupled_weight_decay=True
        ),
    ),
    "radam": Peer(_ADAM, lambda p: _O.RAdam(p, 0.01, _BETAS)),
    "yogi": Peer(_ADAM, lambda p: _P.Yogi(p, 0.01, _BETAS, eps=1e-8, initial_accumulator=1e-6)),
    "adabelief": Peer(_ADAM | {"eps": 1e-16}, lambda p: _P.AdaBelief(p, 0.01, _BETAS, eps=1e-16)),
    "adopt": Peer(
        _ADAM | {"eps": 1e-6},
        lambda p: _P.ADOPT(p, 0.01, _BETAS, clip_lambda=lambda step: (step - 1) ** 0.25, eps=1e-6),
    ),
    "adan": Peer(
        _RATE | {"b1": 0.98, "b2": 0.92, "b3": 0.99, "weight_decay": 0.1},
        lambda p: _P.Adan(p, 0.01, (0.98, 0.92, 0.99), weight_decay=0.1, eps=1e-8),
    ),
    "ademamix": Peer(
        _RATE | {"b2": 0.99, "b3": 0.999, "alpha": 5.0, "weight_decay": 0.1},
        lambda p: _P.AdEMAMix(
            p, 0.01, (0.9, 0.99, 0.999), weight_decay=0.1, weight_decouple=True, alpha=5.0
        ),
    ),
    "madgrad": Peer(
        _RATE | {"momentum": 0.9, "eps": 1e-6},
        lambda p: _P.MADGRAD(p, 0.01, momentum=0.9, eps=1e-6, weight_decay=0.0),
    ),
    "mars": Peer(
        _ADAMW | {"gamma": 0.025, "eps": 1e-15},
        lambda p: _P.MARS(
            p, 0.01, _BETAS, gamma=0.025, weight_decay=0.1, optimize_1d=True, eps=1e-15
        ),
    ),
    "sign_sgd": Peer(_RATE, lambda p: _P.SignSGD(p, 0.01, momentum=0.0)),
    "signum": Peer(_RATE | {"beta": 0.9}, lambda p: _P.SignSGD(p, 0.01, momentum=0.9)),
    "lion": Peer(_ADAMW, lambda p: _P.Lion(p, 0.01, _BETAS, weight_decay=0.1)),
    "cautious_adamw": Peer(
        _ADAMW,
        lambda p: _P.AdEMAMix(
            p,
            0.01,
            (*_BETAS, 0.999),
            weight_decay=0.1,
            weight_decouple=True,
            alpha=0.0,
            cautious=True,
        ),
    ),
    "cautious_lion": Peer(
        _ADAMW, lambda p: _P.Lion(p, 0.01, _BETAS, weight_decay=0.1, cautious=True)
    ),
    "lars": Peer(
        {"learning_rate": 10.0, "momentum": 0.9, "weight_decay": 0.1},
        lambda p: _P.LARS(p, 10.0, momentum=0.9, weight_decay=0.1),
        MATRIX,
    ),
    "lamb": Peer(
        _ADAM | {"eps": 1e-15, "weight_decay": 0.0},
        lambda p: _P.Lamb(p, 0.01, _BETAS, eps=1e-15, adam_debias=True),
    ),
    "novograd": Peer(
        _ADAMW | {"b2": 0.5},
        lambda p: _P.NovoGrad(p, 0.01, (0.9, 0.5), weight_decay=0.1, eps=1e-6),
    ),
    "fromage": Peer(_RATE, lambda p: _P.Fromage(p, 0.01)),
    "adafactor": Peer(
        _RATE | {"decay_rate": 0.8},
        lambda p: _O.Adafactor(p, 0.01, beta2_decay=-0.8, eps=(1e-30, 1e-3), weight_decay=0.0),
    ),
    "sm3": Peer(_RATE | {"momentum": 0.9}, lambda p: _P.SM3(p, 0.01, momentum=0.9, eps=1e-8)),
    "muon": Peer(
        _RATE | {"beta": 0.95, "weight_decay": 0.1},
        lambda p: _O.Muon(p, 0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        MATRIX,
    ),
    "normuon": Peer(
        _RATE | {"beta": 0.95, "b2": 0.95, "weight_decay": 0.1},
        lambda p: _P.NorMuon(
            [{"params": p, "use_muon": True}],
            0.01,
            weight_decay=0.1,
            update_scale="match_rms",
            foreach=False,
        ),
        MATRIX,
        transposed=True,
    ),
    "soap": Peer(
        _ADAMW | {"b1": 0.95, "b2": 0.95},
        lambda p: _P.SOAP(p, 0.01, (0.95, 0.95), weight_decay=0.1, precondition_frequency=10),
    ),
    "kron": Peer(
        _RATE | {"b1": 0.9, "preconditioner_rate": 0.1, "weight_decay": 0.1},
        lambda p: _P.Kron(
            p, 0.01, weight_decay=0.1, precondition_dtype=torch.float64, balance_prob=0.0
        ),
        MATRIX,
    ),
    "prodigy": Peer(
        {"learning_rate": 1.0, "b1": 0.9, "b2": 0.99, "weight_decay": 0.1},
        lambda p: prodigyopt.Prodigy(
            p, 1.0, betas=_BETAS, weight_decay=0.1, use_bias_correction=True
        ),
    ),
    "dadapt_adamw": Peer(
        {"learning_rate": 1.0, "b1": 0.9, "b2": 0.99, "weight_decay": 0.1},
        lambda p: _P.DAdaptAdam(
            p, 1.0, _BETAS, weight_decay=0.1, weight_decouple=True, bias_correction=True
        ),
    ),
    "schedule_free_sgd": Peer(
        {"learning_rate": 0.1, "b1": 0.9},
        lambda p: schedulefree.SGDScheduleFree(p, 0.1, momentum=0.9),
    ),
    "schedule_free_adamw": Peer(
        _ADAMW, lambda p: schedulefree.AdamWScheduleFree(p, 0.01, _BETAS, weight_decay=0.1)
    ),
}
