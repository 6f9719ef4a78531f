"""Tables and figures of the benchmark, made from records alone."""

import re

import pytest
from bench_cases import FakeClock, call, entrant, record, setting, truth
from rich.console import Console

from kernels import bench, bench_report
from kernels.bench_figure import write_figure


def shown(records):
    console = Console(width=220)
    with console.capture() as captured:
        bench_report.show(records, console)
    return captured.get()


def test_clocks_and_devices_never_share_a_table_or_a_panel():
    made = [
        record(),
        record(clock="device busy"),
        record(device="another device"),
        record(dtype="bfloat16"),
    ]
    assert len(bench_report.groups(made)) == 4
    text = shown(made)
    assert text.count("┏") == 4
    assert "a device, device busy clock" in text


def test_times_taken_while_others_were_at_work_are_marked():
    assert "DISTURBED" not in shown([record(clock="wall", others=0.05)])
    assert "DISTURBED" not in shown([record(clock="wall", others=None)])
    assert "DISTURBED" not in shown([record(clock="device busy", others=0.9)])
    made = [record(clock="wall", others=0.4), record(clock="wall", others=0.0, shape="calm")]
    text = shown([*made, record(clock="wall", others=0.2, contestant="another")])
    assert "meanwhile (tiny 40%)" in text


def test_samples_that_do_not_count_are_counted():
    assert "taken again" not in shown([record(clock="wall", retaken=0)])
    made = [record(clock="wall", retaken=4), record(clock="wall", retaken=3, contestant="another")]
    assert "7 of 13 samples, disturbed by others on the cores, were taken again" in shown(made)


def test_of_several_runs_of_a_problem_the_last_is_shown():
    made = [record(run="1", seconds=5.0), record(run="2", seconds=7.0)]
    other = record(run="1", shape="other", seconds=9.0)
    assert bench_report.latest([*made, other]) == [made[1], other]


def test_an_inexact_peer_is_timed_and_its_error_shown():
    off = entrant("off", results=tuple(1.001 * part for part in truth().exact))
    contestants = [entrant("ours/xla", ours=True), off]
    clock = FakeClock(**{"ours/xla": [1e-3] * 3, "off": [2e-3] * 3})
    made = bench.measure(call(), True, truth(), setting(clock), contestants)
    assert [one["status"] for one in made] == ["timed", "timed"]
    made = [{**record(), **one} for one in made]
    assert "INEXACT, error of value 1.0e-03 (ours may have" in shown(made)
    assert "2 [2, 2], error 1e-03 |" in bench_report.to_markdown(made)


def test_a_gpu_result_shows_tera_and_its_driver():
    text = shown([record(flops_per_second=5.5e14, matmul_ceiling=1e15, driver="580.1")])
    assert "TFLOP/s" in text
    assert re.search(r"│ +550 +│ +55%", text)
    assert "driver 580.1" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "readable file"),
        ("", "holds none"),
        ('{"format": 1}\n{"form', "line 2"),
        ('{"format": 99}', "format 1"),
        ("[1]", "format 1"),
    ],
)
def test_a_file_that_holds_no_records_is_refused(tmp_path, capsys, text, message):
    path = tmp_path / "r.jsonl"
    if text is not None:
        path.write_text(text)
    assert bench.main(["--from", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_figure_has_single_calls_first(tmp_path):
    """As many panels with calls in loops beside them as without."""
    alone, loop = record(), record(**{"pass": "gradient, loop"})
    drawn = []
    for name, records in (("alone", [alone]), ("both", [alone, loop]), ("loop", [loop])):
        write_figure(records, tmp_path / f"{name}.svg")
        drawn.append((tmp_path / f"{name}.svg").read_text().count("operations per second"))
    assert drawn == [1, 1, 1]


def test_a_figure_of_nothing_is_refused(tmp_path):
    wrong = {k: v for k, v in record(status="wrong").items() if k != "seconds"}
    with pytest.raises(bench_report.RecordError, match="none"):
        write_figure([wrong], tmp_path / "f.png")
    with pytest.raises(bench_report.RecordError, match=r"\.png, \.svg or \.pdf"):
        write_figure([record()], tmp_path / "f.xyz")
