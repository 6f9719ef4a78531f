"""The benchmark's promises: no number from a wrong result, paired ratios, records that say all."""

import contextlib
import dataclasses
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench_cases import TINY, FakeClock, call, entrant, main, plain, setting, truth

import kernels
from kernels import bench, bench_report, contestants, machine
from kernels.contestants import Absent, Contestant
from kernels.peers import JaxPeer, LibraryPeer
from kernels.timing import Call

compiled_afresh = contestants.compiled_afresh

pytestmark = pytest.mark.usefixtures("small_bench")


def scaled(factor):
    return lambda problem, _: JaxPeer(lambda *a: problem.plain()(*a) * jnp.float32(factor))


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def by_name(records):
    return {record["contestant"]: record for record in records}


# ---------------------------------------------------------------- Correct first


@pytest.mark.parametrize("which", ["forward", "gradient"])
def test_a_wrong_peer_gets_no_number_and_costs_nothing(monkeypatch, tmp_path, capsys, which):
    monkeypatch.setattr(contestants, "peers", lambda _: {"plain": plain, "off": scaled(1.1)})
    out = tmp_path / "r.jsonl"
    status = main("--pass", which, "--seconds", "1e-9", "--out", str(out))
    records = by_name(lines(out))
    assert status == 0
    assert records["off"]["status"] == "wrong"
    assert "seconds" not in records["off"]
    assert records["off"]["errors"]["value"] == pytest.approx(0.1, rel=0.01)
    assert records["ours/xla"]["status"] == records["plain"]["status"] == "timed"
    shown = capsys.readouterr().out
    assert re.search(r"off +│ +WRONG.*1\.0e-01", shown)
    assert "off is WRONG, so it has no number: error of value 1.0e-01 (ours may have" in shown


def test_in_a_loop_and_under_vmap_every_copy_is_checked(monkeypatch, tmp_path):
    def library(read):
        return lambda *_: LibraryPeer(lambda: None, lambda _: None, read, "a library")

    def one_off(problem, gradient):
        copies = iter([1.0, 1.0, 1.1, 1.0])
        return library(lambda _: (truth().exact[0] * next(copies),))(problem, gradient)

    right = library(lambda _: truth().exact[:1])
    monkeypatch.setattr(
        contestants, "peers", lambda _: {"plain": plain, "right": right, "one off": one_off}
    )
    out = tmp_path / "r.jsonl"
    within = ["--within", "alone", "loop", "models"]
    assert main("--pass", "forward", *within, "--seconds", "1e-9", "--out", str(out)) == 0
    found = {(r["pass"], r["contestant"]): r for r in lines(out)}
    for where in ("", ", loop", ", models"):
        assert found["forward" + where, "ours/xla"]["status"] == "timed"
        assert found["forward" + where, "plain"]["status"] == "timed"
        assert found["forward" + where, "right"]["status"] == "timed"
    for where in (", loop", ", models"):
        assert found["forward" + where, "one off"]["status"] == "wrong"
        assert "4 calls, one after the other" in found["forward" + where, "right"]["note"]
        flops = [found["forward" + w, "ours/xla"]["flops"] for w in ("", where)]
        assert flops[1] == 4 * flops[0]


@pytest.mark.parametrize(("within", "held"), [("loop", "while"), ("models", "vmap")])
def test_the_loop_and_the_map_are_in_what_is_compiled(within, held):
    problem = dataclasses.replace(call(), within=within)
    whole, operands = contestants._pass(problem.function("xla"), problem, True)
    text = jax.jit(whole).lower(*operands).as_text(debug_info=True)
    assert f"{held}(" in text or f"stablehlo.{held}" in text
    results = jax.eval_shape(whole, *operands)
    assert [part.shape for part in results] == [(4, *part.shape) for part in truth().exact]


def test_our_own_wrong_result_ends_with_one(monkeypatch, tmp_path, capsys):
    right = kernels.depthwise_conv1d
    monkeypatch.setattr(
        kernels, "depthwise_conv1d", lambda *a, **k: right(*a, **k) + jnp.float32(1e-3)
    )
    out = tmp_path / "r.jsonl"
    assert main("--pass", "forward", "--seconds", "1e-9", "--out", str(out)) == 1
    records = by_name(lines(out))
    assert records["ours/xla"]["status"] == "wrong"
    assert "seconds" not in records["ours/xla"]
    assert records["plain"]["ratio"] is None
    assert "ours/xla is wrong" in capsys.readouterr().err


def test_a_wrong_gradient_is_found_though_the_value_is_right(monkeypatch, tmp_path):
    right = kernels.depthwise_conv1d

    def wrong(inputs, filters, bias, **options):
        bent = bias + (bias - jax.lax.stop_gradient(bias)) * jnp.float32(0.01)
        return right(inputs, filters, bent, **options)

    monkeypatch.setattr(kernels, "depthwise_conv1d", wrong)
    out = tmp_path / "r.jsonl"
    assert main("--pass", "both", "--seconds", "1e-9", "--out", str(out)) == 1
    ours = {r["pass"]: r for r in lines(out) if r["contestant"] == "ours/xla"}
    assert ours["forward"]["status"] == "timed"
    assert ours["gradient"]["status"] == "wrong"
    limits, errors = ours["gradient"]["allowed"], ours["gradient"]["errors"]
    assert [name for name in errors if errors[name] > limits[name]] == ["bias"]


@pytest.mark.parametrize(
    "bad",
    [
        lambda exact: (exact[0] * np.nan, *exact[1:]),
        lambda exact: exact[:2],
        lambda exact: (exact[0][:1], *exact[1:]),
    ],
    ids=["not finite", "results missing", "wrong shape"],
)
def test_what_cannot_be_compared_is_wrong_and_its_record_is_strict_json(bad):
    spoilt = entrant("ours/xla", ours=True, results=bad(truth().exact))
    (record,) = bench.measure(call(), True, truth(), setting(FakeClock()), [spoilt])
    assert record["status"] == "wrong"
    assert None in record["errors"].values()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert any("not finite" in note for note in bench_report.notes([record]))


def test_what_is_timed_is_what_was_checked(monkeypatch):
    """The same call object, hence the same executable; only of those who are right."""
    entrants = contestants.enter(call(), False, {"off": scaled(2.0), "plain": plain})
    seen = {}
    monkeypatch.setattr(bench, "interleave", lambda calls, *_, **__: seen.update(calls) or {})
    bench.measure(call(), False, truth(), setting(FakeClock()), entrants)
    checked = {e.name: e.call for e in entrants if isinstance(e, Contestant) and e.name != "off"}
    assert seen.keys() == {"ours/xla", "plain"}
    assert all(seen[name] is checked[name] for name in seen)


def test_results_in_half_precision_are_judged_by_the_definition_in_that_precision():
    rounded = tuple(part.astype(jnp.bfloat16) for part in truth("bfloat16").exact)
    found = truth("bfloat16").errors(rounded, True)
    assert max(found.values()) > 1e-4
    assert truth("bfloat16").wrong(found) == []
    assert truth("bfloat16").wrong(dict.fromkeys(found, 0.2)) == [*found]


# ---------------------------------------------------------------- Arithmetic


def test_numbers_follow_from_the_times():
    clock = FakeClock(**{"ours/xla": [2.0, 4.0, 8.0], "peer": [6.0, 16.0, 16.0]})
    entrants = [entrant("ours/xla", ours=True), entrant("peer")]
    records = by_name(bench.measure(call(), True, truth(), setting(clock), entrants))
    ours, peer = records["ours/xla"], records["peer"]
    assert (ours["seconds"], ours["seconds_low"], ours["seconds_high"]) == (4.0, 3.0, 6.0)
    # Round by round 3, 4 and 2: not the ratio of the medians, which is 4.
    assert (peer["ratio"], peer["ratio_low"], peer["ratio_high"]) == (3.0, 2.0, 4.0)
    assert (peer["ratio_level"], peer["ratio_pairs"], peer["samples"]) == (0.75, 3, 3)
    assert (ours["ratio"], ours["relative_to"], ours["clock"]) == (1.0, "ours/xla", "invented")
    elements, element = 2 * 6 * 3, 4
    assert ours["flops"] == 6 * elements * 2  # forward and twice as much backward
    assert ours["bytes"] == (5 * elements + 3 * 3 * 3) * element
    assert ours["flops_per_second"] == ours["flops"] / 4.0
    assert ours["bytes_per_second"] == ours["bytes"] / 4.0
    assert (ours["copy_ceiling"], ours["matmul_ceiling"]) == (1e9, 1e10)
    compiled = [ours[key] for key in ("compile_seconds", "temporary_bytes", "peak_bytes")]
    assert compiled == [0.5, 2**20, 2**21]


def test_the_value_alone_costs_the_forward_pass():
    exact = truth().exact[:1]
    only = [entrant("ours/xla", ours=True, results=exact)]
    clock = FakeClock(**{"ours/xla": [1.0] * 3})
    (record,) = bench.measure(call(), False, truth(), setting(clock), only)
    assert record["flops"] == call().forward.flops
    assert record["bytes"] == call().forward.bytes


def test_a_contestant_that_would_hold_up_the_run_is_not_timed():
    clock = FakeClock(**{"ours/xla": [1.0] * 3})
    entrants = [entrant("ours/xla", ours=True), entrant("peer")]
    object.__setattr__(entrants[1], "call", Call(lambda: _sleepless(0.02), lambda _: None))
    records = bench.measure(call(), True, truth(), setting(clock, longest=0.01), entrants)
    peer = by_name(records)["peer"]
    assert peer["status"] == "not timed"
    assert "over --longest 0.01" in peer["note"]
    assert "seconds" not in peer


def _sleepless(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


# ---------------------------------------------------------------- Who takes part


def test_the_interpreter_is_never_timed_and_the_reason_is_shown(tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    assert (
        main("depthwise_conv1d", "--seconds", "1e-9", "--pass", "forward", "--out", str(out)) == 0
    )
    triton = by_name(lines(out))["ours/triton"]
    assert triton["status"] == "not timed"
    assert "interpreter" in triton["note"]
    assert "ours/triton not timed: on a CPU it runs in an interpreter" in capsys.readouterr().out


def test_a_missing_library_is_a_remark_and_a_broken_one_does_not_stop_the_others(
    monkeypatch, tmp_path, capsys
):
    def broken(problem, gradient):
        raise RuntimeError("library exploded\nlong story")

    def unread(problem, gradient):
        return LibraryPeer(lambda: 1 / 0, lambda _: None, lambda _: (), "")

    missing = {"missing": lambda *_: "it is not installed", "broken": broken, "unread": unread}
    monkeypatch.setattr(contestants, "peers", lambda _: {**missing, "plain": plain})
    out = tmp_path / "r.jsonl"
    assert main("--pass", "forward", "--seconds", "1e-9", "--out", str(out)) == 0
    records = by_name(lines(out))
    found = {name: records[name]["status"] for name in ("missing", "broken", "unread", "plain")}
    assert [*found.values()] == ["not timed", "failed", "failed", "timed"]
    shown = capsys.readouterr().out
    assert "missing not timed: it is not installed" in shown
    assert "library exploded" in shown
    assert "ZeroDivisionError" in shown


def test_ours_that_does_not_compile_ends_with_one(monkeypatch, capsys):
    def broken(*_, **__):
        raise TypeError("no such thing")

    monkeypatch.setattr(kernels, "depthwise_conv1d", broken)
    assert main("--pass", "forward", "--seconds", "1e-9") == 1
    printed = capsys.readouterr()
    assert "ours/xla is failed" in printed.err
    assert "TypeError: no such thing" in printed.out
    assert re.search(r"plain +│ +\d", printed.out)


def test_the_automatic_choice_takes_part_only_where_it_mixes(monkeypatch):
    assert contestants.preferred(call(), True) == "ours/xla"
    names = [entrant.name for entrant in contestants.enter(call(), False, {})]
    assert "ours/auto" not in names
    mixed = [SimpleNamespace(implementation=name) for name in ("triton", "xla")]
    monkeypatch.setattr(kernels, "explain", lambda *_, **__: mixed)
    assert contestants.preferred(call(), True) == "ours/auto"
    found = {entrant.name: entrant for entrant in contestants.enter(call(), False, {})}
    assert isinstance(found["ours/auto"], Contestant)


def test_on_a_gpu_triton_is_timed(monkeypatch):
    monkeypatch.setattr(contestants.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(contestants, "_compiled", lambda name, *_, **__: Absent(name, True, ""))
    found = contestants.enter(call(), False, {})
    reasons = {entrant.name: entrant.reason for entrant in found if isinstance(entrant, Absent)}
    assert reasons["ours/triton"] == ""


def test_compilation_is_not_read_from_the_cache(monkeypatch, tmp_path):
    settings = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        with compiled_afresh():
            jax.jit(lambda x: x * 3).lower(jnp.ones(3)).compile()
            assert not list(tmp_path.iterdir())
        jax.jit(lambda x: x * 3).lower(jnp.ones(3)).compile()
        assert list(tmp_path.iterdir())
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        contestants.compilation_cache.reset_cache()


def test_every_contestant_is_compiled_that_way(monkeypatch):
    inside = []

    @contextlib.contextmanager
    def watched():
        inside.append("in")
        yield
        inside.append("out")

    monkeypatch.setattr(contestants, "compiled_afresh", watched)
    made = contestants.enter(call(), False, {"plain": plain})
    compiled = [entrant for entrant in made if isinstance(entrant, Contestant)]
    assert len(compiled) == 2
    assert all((entrant.compile_seconds or 0) > 0 for entrant in compiled)
    assert inside[:2] == ["in", "out"]
    assert inside.count("in") >= 2


# ---------------------------------------------------------------- Records, table, figure


FIELDS = re.findall(
    r"\w+",
    """
    operation shape sizes dtype pass contestant ours status note errors allowed device
    driver versions cpus commit clock time run platform python load bytes flops
    copy_ceiling matmul_ceiling relative_to compile_seconds temporary_bytes peak_bytes seconds
    seconds_low seconds_high samples retaken others repeats ratio ratio_low ratio_high ratio_level
    ratio_pairs bytes_per_second flops_per_second
    """,
)


def test_records_say_everything_and_give_the_table_and_figure_again(tmp_path, capsys):
    out = tmp_path / "deep" / "DEVICE.jsonl"
    assert main("--seconds", "1e-9", "--out", str(out)) == 0
    measured = capsys.readouterr().out
    (written,) = out.parent.iterdir()
    assert written.stem == machine.device_slug(machine.describe_machine()["device"])
    records = lines(written)
    timed = [record for record in records if record["status"] == "timed"]
    assert {record["contestant"] for record in timed} == {"ours/xla", "plain"}
    assert all(set(FIELDS) <= record.keys() for record in timed)
    assert {record["clock"] for record in records} == {"wall"}
    assert timed[0]["versions"]["jax"] == jax.__version__
    assert timed[0]["sizes"] == TINY._asdict() | {"padding": "SAME"}
    assert min(record["samples"] for record in timed) == 3

    assert main("--from", str(written), "--figure", str(tmp_path / "roofline-DEVICE.png")) == 0
    assert capsys.readouterr().out == measured
    figure = tmp_path / f"roofline-{written.stem}.png"
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert "a remark on the peer" in measured
