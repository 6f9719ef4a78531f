"""Each peer computes what ours does; a library that is missing is a remark, not an error."""

import dataclasses
import functools
import importlib.util
import subprocess
import sys

import jax
import numpy as np
import pytest

from kernels import contestants, peers, problems
from kernels.contestants import Absent
from kernels.convolution.conformer import tuning as conformer
from kernels.convolution.dense2d import tuning as images
from kernels.convolution.depthwise1d.tuning import Shape
from kernels.ctc import tuning as ctc
from kernels.peers import common

SHAPES = {
    "even": Shape(2, 7, 3, 4, activation="relu"),
    "causal": Shape(2, 9, 3, 4, padding="CAUSAL", activation="silu"),
    "dilated": Shape(2, 17, 3, 3, dilation=4, activation="gelu"),
    "valid": Shape(2, 9, 3, 4, padding="VALID"),
    "lengths": Shape(4, 12, 3, 5, padding=(0, 1), activation="silu", lengths=True),
}
TOLERANCE = {"float32": 3e-6, "bfloat16": 0.1, "float16": 0.01}


def problem(name, dtype="float32"):
    load = problems.load("depthwise_conv1d")
    return load.problem("depthwise_conv1d", name, SHAPES[name], dtype)


def test_peers_are_of_operations_that_exist():
    operations = {name for family in problems.FAMILIES.values() for name in family}
    assert peers.PEERS.keys() <= operations
    assert peers.peers("nobody_else_has_this") == {}


@functools.cache
def definition(name, dtype):
    """The value and every gradient in float32, of operands as rounded to the dtype."""
    call = problem(name, dtype)
    wide = {
        key: value.astype("float32") if key in call.differentiable else value
        for key, value in call.operands.items()
    }
    call = dataclasses.replace(call, operands=wide)
    shape = jax.eval_shape(call.plain(), *call.arguments).shape
    direction = problems.cotangent(shape, dtype).astype("float32")
    return jax.jit(problems.gradients(call.plain()))(call.arguments, direction)


def results(name, peer, dtype="float32", *, gradient):
    call = problem(name, dtype)
    made = peers.PEERS["depthwise_conv1d"][peer](call, gradient)
    if isinstance(made, peers.LibraryPeer):
        found = made.start()
        made.wait(found)
        return made.read(found)
    assert isinstance(made, peers.JaxPeer), made
    if not gradient:
        return (jax.jit(made.function)(*call.arguments),)
    shape = jax.eval_shape(made.function, *call.arguments)
    direction = problems.cotangent(shape.shape, shape.dtype)
    return jax.jit(problems.gradients(made.function))(call.arguments, direction)


@pytest.mark.parametrize("peer", ["lax", "torch"])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float32") for name in SHAPES] + [("causal", "bfloat16"), ("lengths", "float16")],
)
def test_a_peer_computes_the_definition_and_its_gradients(peer, name, dtype):
    if peer == "torch":
        pytest.importorskip("torch")
    found, true = results(name, peer, dtype, gradient=True), definition(name, dtype)
    errors = [
        problems.error(f, np.asarray(t, np.float64)) for f, t in zip(found, true, strict=True)
    ]
    assert max(errors) < TOLERANCE[dtype], errors


@pytest.mark.parametrize("peer", ["lax", "torch"])
def test_a_peer_computes_the_value_alone(peer):
    if peer == "torch":
        pytest.importorskip("torch")
    (found,) = results("lengths", peer, gradient=False)
    true = np.asarray(definition("lengths", "float32")[0], np.float64)
    assert problems.error(found, true) < TOLERANCE["float32"]


LAYER = conformer.Shape(3, 7, 4, 4, padding=(1, 2), lengths=True)
GIVEN = conformer.Shape(2, 5, 3, 3, "batch_inference", "CAUSAL", lengths=True, state=True)


@pytest.mark.parametrize(
    ("peer", "shape"),
    [
        ("lax", LAYER),
        ("torch", GIVEN),
        pytest.param("lax", GIVEN, marks=pytest.mark.slow),
        pytest.param("torch", LAYER, marks=pytest.mark.slow),
    ],
)
def test_the_peers_of_the_conformer_compute_its_definition(peer, shape):
    if peer == "torch":
        pytest.importorskip("torch")
    call = conformer.problem("conformer_convolution", "small", shape, "float32")
    made, true = peers.PEERS["conformer_convolution"][peer](call, True), problems.exact(call)
    if isinstance(made, peers.LibraryPeer):
        found = made.read(made.start())
    else:
        assert isinstance(made, peers.JaxPeer), made
        along = problems.cotangent(true[0].shape, "float32")
        found = jax.jit(problems.gradients(made.function))(call.arguments, along)
    errors = [problems.error(f, t) for f, t in zip(found, true, strict=True)]
    assert max(errors) < TOLERANCE["float32"], errors


def test_torch_is_given_the_layout_that_it_wants_and_says_so():
    torch = pytest.importorskip("torch")
    peer = peers.PEERS["depthwise_conv1d"]["torch"](problem("even"), False)
    assert isinstance(peer, peers.LibraryPeer)
    (value,) = peer.start()
    assert value.shape == (2, 3, 7)
    assert value.is_contiguous()
    assert peer.read((value,))[0].shape == (2, 7, 3)
    assert "(B, C, T)" in peer.note
    assert f"{torch.get_num_threads()} threads" in peer.note
    assert torch.get_num_threads() == common.cores()


def test_a_missing_torch_is_a_remark(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a)
    )
    only_torch = {"torch": peers.PEERS["depthwise_conv1d"]["torch"]}
    entrant = contestants.enter(problem("even"), False, only_torch)[-1]
    assert entrant == Absent("torch", False, "torch is not installed (pip install torch)")


def test_a_torch_without_the_gpu_that_jax_uses_is_a_remark(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(common.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reason = peers.PEERS["depthwise_conv1d"]["torch"](problem("even"), False)
    assert reason == "JAX uses the GPU, and this torch cannot"


def test_other_libraries_are_imported_only_when_asked_for():
    code = "import sys, kernels.bench; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["lax", "torch"])
@pytest.mark.parametrize("padding", ["SAME", ((-1, 2), (0, 3))])
def test_peers_of_images_compute_the_definition(name, padding):
    if name == "torch":
        pytest.importorskip("torch", reason="a peer that need not be installed")
    shape = images.Shape(2, 5, 6, 3, 4, (3, 2), (2, 1), padding, (1, 2), "gelu")
    call = images.problem("conv2d", "small", shape, "float32")
    made = peers.PEERS["conv2d"][name](call, True)
    assert not isinstance(made, str)
    true = problems.exact(call)
    if isinstance(made, peers.JaxPeer):
        direction = problems.cotangent(true[0].shape, "float32")
        found = problems.gradients(made.function)(call.arguments, direction)
    else:
        found = made.read(made.start())
    for theirs, exact in zip(found, true, strict=True):
        assert problems.error(theirs, exact) < TOLERANCE["float32"]


@pytest.mark.parametrize("name", ["optax", "torch"])
@pytest.mark.parametrize("gradient", [False, True])
def test_peers_of_ctc_compute_the_loss_where_a_path_exists(name, gradient):
    call = ctc.problem("ctc_loss", "small", ctc.Shape(4, 20, 6, 3, lengths=True), "float32")
    if name == "torch":
        pytest.importorskip("torch", reason="a peer that need not be installed")
    made = peers.PEERS["ctc_loss"][name](call, gradient)
    assert not isinstance(made, str)
    true = problems.exact(call)
    if isinstance(made, peers.JaxPeer):
        direction = problems.cotangent(true[0].shape, "float32")
        found = problems.gradients(made.function)(call.arguments, direction)
    else:
        found = made.read(made.start())
        assert len(found) == 1 + gradient
    for ours, exact in zip(found, true, strict=False):
        assert problems.error(ours, exact) < 1e-4  # optax approximates impossible paths


def test_what_torch_cannot_do_is_said():
    pytest.importorskip("torch", reason="a peer that need not be installed")
    call = ctc.problem("ctc_loss", "small", ctc.Shape(1, 5, 4, 2), "bfloat16")
    assert peers.PEERS["ctc_loss"]["torch"](call, False) == "torch has no CTC in bfloat16"
    call = ctc.problem("ctc_loss", "small", ctc.Shape(1, 5, 4, 2), "float32")
    skipping = {**call.operands, "logit_paddings": np.array([[0, 1, 0, 0, 0]], np.float32)}
    reason = peers.PEERS["ctc_loss"]["torch"](dataclasses.replace(call, operands=skipping), False)
    assert reason == "torch cannot skip frames in mid-sequence"
