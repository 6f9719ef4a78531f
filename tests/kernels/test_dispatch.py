"""The choice of an implementation, and what is said about it."""

import importlib
import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import kernels

X, F = jnp.ones((2, 9, 3)), jnp.ones((4, 3))
WITHOUT = "Triton is not installed"


def test_xla_is_chosen_on_a_cpu_and_the_others_have_reasons():
    (found,) = kernels.explain(kernels.depthwise_conv1d, X, F, activation="silu")
    assert (found.operation, found.platform) == ("depthwise_conv1d", "cpu")
    assert found.implementation == "xla"
    assert "only xla and triton" in found.others["cudnn"]
    assert "depthwise_conv1d on cpu: xla" in str(found)


def test_names_among_the_arrays_are_to_be_passed_by_keyword():
    state = jnp.zeros((2, 3, 3))
    for arguments in ((X, F, None, "CAUSAL"), (X, F, {"state": state, "padding": "CAUSAL"})):
        with pytest.raises(ValueError, match=r"must be arrays.*received 'CAUSAL'.*by keyword"):
            kernels.explain(kernels.depthwise_conv1d, *arguments)
    with pytest.raises(TypeError, match="positional arguments"):  # of the operation itself
        kernels.explain(kernels.depthwise_conv1d, X, F, None, X)


def test_says_where_no_kernel_of_the_package_runs():
    paddings = jnp.zeros((2, 9)), jnp.zeros((2, 1))
    labels = jnp.ones((2, 1), jnp.int32)
    with pytest.warns(UserWarning, match=r"ctc_alignment.*none of the operations.*plain JAX"):
        assert kernels.explain(kernels.ctc_alignment, X, paddings[0], labels, paddings[1]) == []
    with pytest.warns(UserWarning, match=r"sum.*none of the operations.*plain JAX"):
        assert kernels.explain(jnp.sum, X) == []


def test_explains_calls_inside_jit_and_scan():
    @jax.jit
    def twice(x):
        def step(carry, _):
            return jnp.asarray(kernels.depthwise_conv1d(carry, F)), None

        return jax.lax.scan(step, step(x, None)[0], length=2)[0]

    assert len(kernels.explain(twice, X)) == 2


def test_what_a_derivative_runs_is_told_too():
    def loss(x):
        return jnp.asarray(kernels.depthwise_conv1d(x, F)).sum()

    forward, backward = kernels.explain(jax.grad(loss), X)
    assert forward.operation == "depthwise_conv1d"
    assert backward.operation == "depthwise_conv1d_gradient"
    found = kernels.explain(lambda x: jax.jvp(loss, (x,), (x,)), X)
    (tangent,) = [call for call in found if call.operation == "depthwise_conv1d_tangent"]
    assert tangent.implementation == "xla"
    assert "forward mode" in tangent.others["triton"] or WITHOUT in tangent.others["triton"]


def test_the_tuning_is_told():
    pytest.importorskip("triton", reason="needs Triton, which is for Linux only")
    (found,) = kernels.explain(kernels.depthwise_conv1d, X, F, implementation="triton")
    assert found.implementation == "triton"
    assert found.tuning[0].config.num_warps == 4
    assert "triton was asked for" in found.others["xla"]


def test_what_an_implementation_cannot_do_is_refused_with_the_reason():
    with pytest.raises(NotImplementedError, match=r"only xla and triton.*implementation=None"):
        kernels.depthwise_conv1d(X, F, implementation="cudnn")
    has_triton = importlib.util.find_spec("triton") is not None
    reason = "float64 was given" if has_triton else WITHOUT
    with jax.enable_x64(True):
        x, f = jnp.ones((2, 9, 3), jnp.float64), jnp.ones((4, 3), jnp.float64)
        with pytest.raises(NotImplementedError, match=reason):
            kernels.depthwise_conv1d(x, f, implementation="triton")


def test_maps_of_nothing_have_the_shapes_of_maps():
    """Convolutions have a test of their own."""
    q, labels, paddings = jnp.ones((2, 2, 5, 4, 8)), jnp.ones((2, 1), jnp.int32), jnp.zeros((2, 5))

    def losses(logits):
        return kernels.ctc_loss(logits, paddings, labels, jnp.zeros((2, 1)))

    def attend(q):
        return kernels.attention(q, q, q, return_residual=True)

    for function, x in ((losses, q[..., 0, :]), (attend, q)):
        for derived in (function, lambda x, f=function: jax.vjp(f, x)[1](f(x))):
            found, two = jax.vmap(derived)(x[:0]), jax.eval_shape(jax.vmap(derived), x)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(two), strict=True):
                assert (a.shape, a.dtype) == ((0, *b.shape[1:]), b.dtype)


def test_what_xla_runs_is_traced_once_for_its_shapes_and_for_the_program(monkeypatch):
    module, traced = importlib.import_module("kernels.ctc.xla"), []

    def counted(name):
        def call(*args, **kwargs):
            traced.append(name)
            return getattr(original, name)(*args, **kwargs)

        return call

    original = module.ctc_loss
    replaced = {name: counted(name) for name in ("forward", "saving", "gradient")}
    monkeypatch.setattr(module, "ctc_loss", original._replace(**replaced))
    labels, paddings = jnp.ones((3, 1), jnp.int32), (jnp.zeros((3, 11)), jnp.zeros((3, 1)))

    def loss(logits):
        return kernels.ctc_loss(logits, paddings[0], labels, paddings[1]).sum()

    jax.jit(jax.value_and_grad(loss)).lower(jnp.zeros((3, 11, 7)))
    assert traced == ["saving", "gradient"]
    with jax.enable_x64(True):  # nothing is taken from another configuration
        jax.jit(loss).lower(jnp.zeros((3, 11, 7), jnp.float64))
    assert traced == ["saving", "gradient", "forward"]


WITHOUT_GPU_SOFTWARE = """
import sys

class Hiding:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = ("triton", "jax_triton", "jax_cuda12_plugin", "jax_plugins")
        return None if name.split(".")[0] in hidden else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)

sys.meta_path[:] = map(Hiding, sys.meta_path)
import jax, jax.numpy as jnp, kernels
x, f = jnp.ones((2, 9, 3)), jnp.ones((4, 3))
gradient = jax.jit(jax.grad(lambda x, f: kernels.depthwise_conv1d(x, f).sum(), (0, 1)))
assert gradient(x, f)[0].shape == x.shape
(found,) = kernels.explain(kernels.depthwise_conv1d, x, f)
assert "Triton is not installed" in found.others["triton"], found
try:
    kernels.depthwise_conv1d(x, f, implementation="triton")
except NotImplementedError as error:
    print(error)
"""


def test_without_triton_and_cuda_everything_but_triton_works():
    command = [sys.executable, "-c", WITHOUT_GPU_SOFTWARE]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Triton is not installed" in run.stdout
    assert "pip install 'trellis-lab[triton]'" in run.stdout


def test_nothing_imports_triton_unless_it_is_asked_for():
    code = "import jax, sys, kernels; import jax.numpy as jnp; jax.config.update('jax_platforms', "
    code += "'cpu'); f = lambda x: kernels.depthwise_conv1d(x, jnp.ones((3, 2))).sum(); "
    code += "jax.jit(jax.grad(f))(jnp.ones((1, 5, 2))); "
    code += "print(sorted({'triton', 'jax_triton', 'torch', 'flax'} & {*sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
