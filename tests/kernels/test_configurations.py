"""Configurations of launches: who answers first, what tables may hold, what is compiled of them."""

import dataclasses
import importlib
import importlib.util
import itertools
import json
import os
import re
import warnings
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import kernels
from kernels import configurations, launch, problems
from kernels.architectures import ARCHITECTURES
from kernels.configurations import Device, Entry, Tunable, bucket, override
from kernels.convolution.depthwise1d.tuning import CONVOLVE, FILTER_GRADIENT, SLOPE, Config

without_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux only"
)
GPU = Device("NVIDIA Test GPU", "sm_90")
SIZES = {
    "rows": 2, "frames": 9, "channels": 3, "width": 4, "dilation": 1, "dtype": "float32"
}  # fmt: skip
KEY = "float32 channels<=4 dilation<=1 frames<=16 rows<=2 width<=4"
HEURISTIC = CONVOLVE.heuristic(arch="sm_90", **SIZES)
TUNED = Config(block_frames=8, block_channels=32, unroll=2, num_warps=2)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A GPU at hand, and empty folders for the user's tables and those of the tree."""
    monkeypatch.setattr(configurations, "device", lambda: GPU)
    monkeypatch.setattr(configurations, "TREE", tmp_path / "tree")
    monkeypatch.setenv("TRELLIS_TUNING", str(tmp_path / "user"))
    configurations.forget()
    yield SimpleNamespace(
        user=tmp_path / "user" / "nvidia-test-gpu.json",
        tree=tmp_path / "tree" / "nvidia-test-gpu.json",
    )
    configurations.forget()


def entry(config=TUNED, **sizes):
    return Entry(config, {**SIZES, **sizes}, "small/float32", 1e-6, 2e-6, "jax 1")


def put(path, config=TUNED, tunable=CONVOLVE, device=GPU, **sizes):
    configurations.write(
        path, device, tunable, tunable.bucket(**SIZES | sizes), entry(config, **sizes)
    )


def test_an_override_comes_first_then_the_users_table_the_trees_and_the_heuristic(folders):
    assert CONVOLVE.choose(**SIZES).config == HEURISTIC
    assert CONVOLVE.choose(**SIZES).origin == "the heuristic for sm_90"
    tree, user, forced = (dataclasses.replace(TUNED, unroll=unroll) for unroll in (3, 4, 5))
    put(folders.tree, tree)
    found = CONVOLVE.choose(**SIZES)
    assert found.config == tree
    assert str(folders.tree) in found.origin
    assert KEY in found.origin
    put(folders.user, user)
    found = CONVOLVE.choose(**SIZES)
    assert found.config == user
    assert str(folders.user) in found.origin
    for key in (CONVOLVE.name, (CONVOLVE.name, KEY)):
        with override({key: forced}):
            assert CONVOLVE.choose(**SIZES).config == forced
            assert CONVOLVE.choose(**SIZES).origin == "an override"
            # An experiment says all: what it does not name is not looked up.
            assert SLOPE.choose(**SIZES).origin == "the heuristic for sm_90"
    with override({(CONVOLVE.name, "elsewhere"): forced}):
        assert CONVOLVE.choose(**SIZES).config == HEURISTIC
    assert CONVOLVE.choose(**SIZES).config == user


def test_tables_are_for_the_gpu_at_hand_only(folders, monkeypatch):
    put(folders.user)
    with launch.compute_capability(80):
        assert CONVOLVE.choose(**SIZES).origin == "the heuristic for sm_80"
    assert CONVOLVE.choose(**SIZES).config == TUNED
    monkeypatch.setattr(configurations, "device", lambda: Device("NVIDIA Other", "sm_100"))
    assert CONVOLVE.choose(**SIZES).origin == "the heuristic for sm_100"
    monkeypatch.setattr(configurations, "device", lambda: None)
    assert CONVOLVE.choose(**SIZES).config == HEURISTIC


def test_the_device_is_an_nvidia_gpu_or_none(monkeypatch):
    assert configurations.device() is None  # tests compute on a CPU

    cpu = jax.devices("cpu")[0]

    def gpu(kind, capability):
        device = SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=capability)
        monkeypatch.setattr(jax, "local_devices", lambda **_: [device])

    gpu("NVIDIA H100 80GB HBM3", "9.0")
    assert configurations.device() == Device("NVIDIA H100 80GB HBM3", "sm_90")
    with jax.default_device(cpu):  # kernels are interpreted there
        assert configurations.device() is None
    gpu("NVIDIA GB300", "10.3")
    assert configurations.device() == Device("NVIDIA GB300", "sm_103")
    gpu("AMD Instinct MI300X", "gfx942")
    assert configurations.device() is None


def test_near_sizes_share_an_entry_and_others_do_not(folders):
    put(folders.user)
    shared = [{}, {"frames": 16}, {"rows": 2, "channels": 4}, {"width": 3}]
    apart = [{"frames": 17}, {"channels": 5}, {"dtype": "bfloat16"}, {"dilation": 2}, {"rows": 3}]
    assert all(CONVOLVE.choose(**SIZES | sizes).config == TUNED for sizes in shared)
    assert not any(CONVOLVE.choose(**SIZES | sizes).config == TUNED for sizes in apart)
    assert FILTER_GRADIENT.choose(**SIZES).config != TUNED


@without_triton
def test_a_launch_runs_with_its_entry_and_explain_says_so(folders, monkeypatch):
    put(folders.user)
    gradient = dataclasses.replace(TUNED, block_frames=32)
    put(folders.tree, gradient, FILTER_GRADIENT)
    calls, original = [], launch.kernel_call

    def kernel_call(kernel, *arguments, **options):
        calls.append((kernel.__name__, options["BLOCK_T"], options["UNROLL"], options["num_warps"]))
        return original(kernel, *arguments, **options)

    monkeypatch.setattr(launch, "kernel_call", kernel_call)
    x, f = jnp.ones((2, 9, 3)), jnp.ones((4, 3))

    def loss(x, f):
        return kernels.depthwise_conv1d(
            x, f, activation="silu", implementation="triton"
        ).sum()  # fmt: skip

    jax.block_until_ready(jax.jit(jax.value_and_grad(loss, (0, 1)))(x, f))
    slope = SLOPE.heuristic(arch="sm_90", **SIZES)
    assert {*calls} == {
        ("convolve", TUNED.block_frames, TUNED.unroll, TUNED.num_warps),
        ("convolve", slope.block_frames, slope.unroll, slope.num_warps),
        ("filter_gradient", gradient.block_frames, gradient.unroll, gradient.num_warps),
    }
    (found,) = kernels.explain(loss, x, f)
    chosen = {choice.kernel: choice for choice in found.tuning}
    assert chosen[CONVOLVE.name].config == TUNED
    assert chosen[FILTER_GRADIENT.name].config == gradient
    assert "the heuristic for sm_90" in chosen[SLOPE.name].origin
    assert f"{TUNED} from your table, {folders.user}" in str(found)
    assert f"{gradient} from the committed table, {folders.tree}" in str(found)


def changed(*path, to):
    """An edit of a table: the value at this path."""

    def edit(table):
        *way, last = path
        for step in way:
            table = table[step]
        table[last] = to

    return edit


ENTRY = ("kernels", CONVOLVE.name, "entries", KEY)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (changed("format", to=2), "its format must be 1, received 2"),
        (changed("format", to="1"), "its format must be 1, received '1'"),
        (changed("surprise", to=1), "the table must have the fields"),
        (changed("kernels", to=[]), "kernels of the table must be of type dict"),
        (changed("kernels", CONVOLVE.name, to=3), "must have the fields"),
        (changed("kernels", CONVOLVE.name, "version", to=True), "version .* of type int.*True"),
        (changed("kernels", CONVOLVE.name, "note", to=""), "must have the fields"),
        (changed(*ENTRY, to={}), "must have the fields.*'config'"),
        (changed(*ENTRY, "seconds", to="1e-6"), "seconds of .* of type float, received '1e-6'"),
        (changed(*ENTRY, "config", "unroll", to=2.0), "unroll of .* of type int, received 2.0"),
        (changed(*ENTRY, "config", "unroll", to=True), "unroll of .* of type int, received True"),
        (changed(*ENTRY, "config", "unrol", to=2), "must have the fields.*'unroll'"),
        (changed(*ENTRY, "config", "num_warps", to=3), r"powers of two.*num_warps=3"),
    ],
)
def test_a_damaged_table_is_refused_and_named(edit, message, folders):
    put(folders.user)
    table = json.loads(folders.user.read_text())
    edit(table)
    folders.user.write_text(json.dumps(table))
    configurations.forget()
    with pytest.raises(ValueError, match=message) as caught:
        CONVOLVE.choose(**SIZES)
    assert str(folders.user) in str(caught.value)
    assert "Delete it" in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "\xff\xfe"])
def test_what_is_no_json_table_is_refused(content, folders):
    folders.user.parent.mkdir()
    folders.user.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"nvidia-test-gpu.json is not a table.*Delete it"):
        CONVOLVE.choose(**SIZES)


@dataclass(frozen=True)
class OneMore(Config):
    group: int = 8


@pytest.mark.parametrize(
    "now",
    [
        dataclasses.replace(CONVOLVE, version=2),
        dataclasses.replace(CONVOLVE, config=OneMore),
        dataclasses.replace(CONVOLVE, bucket=lambda *, frames, **_: bucket(frames=frames)),
        dataclasses.replace(CONVOLVE, bucket=lambda *, heads, **_: bucket(heads=heads)),
    ],
    ids=["version", "fields", "key", "sizes"],
)
def test_entries_for_another_version_of_a_kernel_are_ignored_with_a_warning(now, folders):
    put(folders.user)
    put(folders.user, tunable=SLOPE)
    sizes = SIZES | {"heads": 2}
    with pytest.warns(UserWarning, match=r"nvidia-test-gpu.json .* another depthwise_conv1d.conv"):
        found = now.choose(**sizes)
    assert found.origin == "the heuristic for sm_90"
    with warnings.catch_warnings():  # once is enough
        warnings.simplefilter("error")
        assert now.choose(**sizes) == found
    # Tuning again replaces them, and only them.
    configurations.write(folders.user, GPU, now, now.bucket(**sizes), None)
    kept = json.loads(folders.user.read_text())["kernels"]
    assert kept[CONVOLVE.name]["entries"] == {}
    assert SLOPE.choose(**SIZES).config == TUNED


def test_a_table_is_read_once(folders):
    put(folders.user)
    assert CONVOLVE.choose(**SIZES).config == TUNED
    folders.user.unlink()
    assert CONVOLVE.choose(**SIZES).config == TUNED
    configurations.forget()
    assert CONVOLVE.choose(**SIZES).config == HEURISTIC


def test_writing_merges_and_taking_out_leaves_the_rest(folders):
    put(folders.user)
    put(folders.user, frames=100)
    put(folders.user, tunable=SLOPE)
    put(folders.user, other := dataclasses.replace(TUNED, unroll=7))
    assert CONVOLVE.choose(**SIZES).config == other
    configurations.write(folders.user, GPU, CONVOLVE, KEY, None)
    assert CONVOLVE.choose(**SIZES).config == HEURISTIC
    assert CONVOLVE.choose(**SIZES | {"frames": 128}).config == TUNED
    assert SLOPE.choose(**SIZES).config == TUNED
    (kept,) = configurations.entries(folders.user, SLOPE).values()
    assert kept == entry()
    assert [path.name for path in folders.user.parent.iterdir()] == ["nvidia-test-gpu.json"]


def test_an_interrupted_write_leaves_what_was_there(folders, monkeypatch):
    put(folders.user)
    before = folders.user.read_text()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        put(folders.user, frames=100)
    assert folders.user.read_text() == before
    assert len([*folders.user.parent.iterdir()]) == 1
    assert CONVOLVE.choose(**SIZES | {"frames": 100}).config != TUNED


def test_a_table_of_another_device_is_not_written_to(folders):
    put(folders.user)
    with pytest.raises(ValueError, match=r"must be a table of NVIDIA Other .* NVIDIA Test GPU"):
        put(folders.user, device=Device("NVIDIA Other", "sm_90"))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Config)])
@pytest.mark.parametrize("value", [0, -4])
def test_a_configuration_that_no_launch_could_use_is_refused(field, value):
    with pytest.raises(ValueError, match=re.escape(f"{field}={value}")):
        Config(**{field: value})


# ---------------------------------------------------------------------- What families declare

CASES = [
    (operation, tunable, shape)
    for operation in itertools.chain(*problems.FAMILIES.values())
    for tunable in getattr(problems.load(operation), "TUNABLES", ())
    for shape in problems.load(operation).SHAPES
]


@pytest.mark.parametrize(
    ("operation", "tunable", "shape"), CASES, ids=lambda x: getattr(x, "name", x)
)
def test_candidates_are_distinct_and_few(operation, tunable: Tunable, shape):
    family = problems.load(operation)
    sizes = family.sizes(family.SHAPES[shape], "bfloat16")
    found = list(tunable.candidates(**sizes))
    assert len({*found}) == len(found)
    assert 3 <= len({*found} - {tunable.heuristic(arch="sm_90", **sizes)}) <= 36


@without_triton
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_report_compiles_the_heuristics_and_every_committed_configuration(arch, folders):
    kernel = importlib.import_module("kernels.convolution.depthwise1d.kernel")
    alone = list(kernel.compiled_variants(arch))
    assert len(alone) <= 12
    covered = {(v.constants["W"], v.constants["DILATION"], v.kernel.__name__) for v in alone}
    assert covered == {
        (w, d, k) for w, d in [(4, 1), (31, 1), (128, 1), (3, 8)] for k in ("convolve",
                                                                         "filter_gradient")
    }  # fmt: skip
    assert {v.signature["x"] for v in alone} == {"*bf16", "*fp32"}
    assert sum(v.constants.get("SLOPE", False) for v in alone) == 2
    other = dataclasses.replace(TUNED, unroll=7)
    sizes: dict[str, Any] = {"dtype": "bfloat16"}
    put(folders.tree, **sizes)
    put(folders.tree, frames=100, **sizes)  # the same configuration is compiled once
    put(folders.tree, other, frames=1000, **sizes)
    put(folders.tree.with_name("h100.json"), other, SLOPE, Device("H100", "sm_90"), **sizes)
    put(folders.tree.with_name("b200.json"), other, SLOPE, Device("B200", "sm_100"), **sizes)
    put(folders.user, dataclasses.replace(TUNED, unroll=3), **sizes)  # nobody else's concern
    found = list(kernel.compiled_variants(arch))
    tuned = [(v.name.split("/")[0], v.config) for v in found[len(alone) :]]
    expected = {
        "sm_90": [(CONVOLVE.name, other), (CONVOLVE.name, TUNED), (SLOPE.name, other)],
        "sm_100": [(SLOPE.name, other)],
    }
    assert sorted(tuned, key=str) == sorted(expected.get(arch, []), key=str)
    assert len({v.name for v in found}) == len(found)
    for variant in found:
        given = [*variant.signature, *variant.constants]
        assert sorted(given) == sorted(variant.kernel.arg_names)


def test_tables_in_the_tree_are_of_the_kernels_as_they_are():
    for path in configurations.TREE.glob("*.json"):
        for operation in itertools.chain(*problems.FAMILIES.values()):
            for tunable in getattr(problems.load(operation), "TUNABLES", ()):
                configurations.entries(path, tunable)  # a warning is an error here
