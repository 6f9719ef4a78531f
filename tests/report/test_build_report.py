"""The whole report: from a directory to files, the same every time, and clear errors."""

import json
import re
import shutil

import numpy as np
import pytest
from speech_rows import Study, Truth, first_examples, rows_of

from research.errors import RunError
from research.report import build_report
from research.report.__main__ import main
from research.runlog import open_run, write_json

PNG = b"\x89PNG\r\n\x1a\n"


def written(path):
    """Every file that a report writes, by name."""
    files = [path / "report.html", *path.glob("*.csv"), *(path / "figures").iterdir()]
    files.append(path / "results.json")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def first_files(complete_run):
    """The files of the first report of a complete run."""
    build_report(complete_run)
    return written(complete_run)


@pytest.fixture(params=["optimizer_run", "speech_run"])
def empty_run(request):
    """A run of each kind before its first trial has ended."""
    return request.getfixturevalue(request.param)(rows=[])


def test_the_report_is_whole_and_self_contained(first_files):
    html = first_files["report.html"].decode()
    figures = [content for name, content in first_files.items() if name.endswith(".png")]
    assert len(figures) == html.count("data:image/png;base64,") >= 4
    assert all(png.startswith(PNG) and len(png) > 4000 for png in figures)
    assert not re.search(r"https?://|<script|<link|url\(", html)
    rows = json.loads(first_files["results.json"])
    lines = first_files["results.csv"].decode().splitlines()
    assert lines[0].split(",") == list(rows[0])
    assert len(lines) == 1 + len(rows) == (3 if "trainings.csv" in first_files else 7)


def test_the_same_records_give_the_same_bytes(complete_run, first_files):
    for name in first_files:
        (complete_run / name).unlink()
    build_report(complete_run)
    assert written(complete_run) == first_files
    assert not list(complete_run.rglob("*.tmp"))


def test_times_and_the_order_of_lines_reach_no_table_and_no_figure(
    complete_run, first_files, tmp_path
):
    run = shutil.copytree(complete_run, tmp_path / complete_run.name)
    times = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    slower = [json.dumps(line | {"seconds": 7.7}) + "\n" for line in times]
    (run / "timings.jsonl").write_text("".join(slower))
    if (run / "metrics.jsonl").exists():
        lines = (run / "metrics.jsonl").read_text().splitlines()
        # The last line is one that a killed process left half written.
        (run / "metrics.jsonl").write_text("\n".join([*reversed(lines), lines[0][:30]]))
    build_report(run)
    changed = {name for name, content in written(run).items() if content != first_files[name]}
    assert changed - {"costs.csv"} == {"report.html"}


def test_names_from_the_records_are_escaped(empty_run):
    run = empty_run
    head = json.loads((run / "config.json").read_text())
    head["data"]["source"] = head["config"]["note"] = "<img src=x onerror=alert(1)>"
    (run / "config.json").write_text(json.dumps(head))
    html = build_report(run).read_text()
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html


@pytest.mark.usefixtures("unpainted")
def test_a_report_of_what_the_run_log_writes(tmp_path):
    study = Study(truths={"ctc": Truth()}, encoders={"bilstm": 0.0}, folds=("theo",), seeds=(1,),
                  trials=2, strings=5)  # fmt: skip
    rows = rows_of(study)
    with open_run(
        tmp_path,
        experiment="compare_ctc",
        recipe="quick",
        config=study.config() | {"source": "espeak-ng synthetic voices"},
        data={"name": "espeak", "source": "espeak-ng synthetic voices", "sha256": "ab"},
        seeds=[1],
    ) as run:
        for row in rows:
            write_json(run.path / "rows" / f"{row['key']}.json", row)
        for key, arrays in first_examples(study, rows).items():
            run.save_examples(key, arrays)
    html = build_report(run.path).read_text()
    assert "espeak-ng synthetic voices" in html
    assert "an error beside a success" in html
    assert "Run in progress" not in html


def test_the_command_prints_the_path(empty_run, capsys):
    assert main([str(empty_run)]) == 0
    assert capsys.readouterr().out == f"{empty_run / 'report.html'}\n"


def remove_config(path):
    (path / "config.json").unlink()


def other_format(path):
    head = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(head | {"format": 99}))


def other_experiment(path):
    head = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(head | {"experiment": "compare_teapots"}))


def config_is_a_list(path):
    (path / "config.json").write_text("[]")


def a_record(path):
    return next((path / "rows").glob("*.json"))


def torn_trial(path):
    a_record(path).write_text(a_record(path).read_text()[:40])


def trial_is_a_list(path):
    a_record(path).write_text("[]")


def metric_without_step(path):
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"trial": "a"}\n')


def metric_is_a_number(path):
    with (path / "metrics.jsonl").open("a") as file:
        file.write("12\n")


def step_is_text(path):
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"trial": "a", "step": "ten"}\n')


def config_is_bytes(path):
    (path / "config.json").write_bytes(np.arange(256, dtype=np.uint8).tobytes())


@pytest.mark.parametrize(
    "damage",
    [
        remove_config,
        other_format,
        other_experiment,
        config_is_a_list,
        config_is_bytes,
        torn_trial,
        trial_is_a_list,
        metric_without_step,
        metric_is_a_number,
        step_is_text,
    ],
)
@pytest.mark.parametrize("kind", ["optimizer_run", "speech_run"])
@pytest.mark.usefixtures("unpainted")
def test_a_run_that_cannot_be_read_is_a_message(kind, damage, request, capsys):
    run = request.getfixturevalue(kind)()
    damage(run)
    assert main([str(run)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err
    assert not (run / "report.html").exists()


def test_a_path_that_is_no_run_is_a_message(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "run directory" in capsys.readouterr().err


@pytest.mark.usefixtures("unpainted")
def test_a_directory_that_cannot_be_written_is_an_error(speech_run):
    run = speech_run()
    (run / "figures").write_text("a file in the way")
    with pytest.raises(RunError, match="writable"):
        build_report(run)
