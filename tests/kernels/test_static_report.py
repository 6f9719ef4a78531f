"""The report on compiled kernels: its files, its exit status, and what it says without one."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kernels
from kernels import static_report
from kernels.architectures import ARCHITECTURES
from kernels.compiled import ReportError, Row
from kernels.static_report import cells, families, main, to_json, to_markdown

ROOT = Path(kernels.__file__).parent.parent
HEADER = {"triton": "3.8.0", "instructions": "counted in SASS", "rates": "published, not measured"}
GOOD = Row(
    family="toy",
    variant="forward W=31",
    arch="sm_90",
    warps=4,
    stages=3,
    registers=40,
    stack_bytes=0,
    spills=0,
    shared_bytes=2048,
    matrix={"wgmma": 4},
    double=0,
    loads={32: 2, 128: 8},
    stores={128: 2},
    atomics=0,
    blocks_per_sm=12,
    occupancy=0.75,
    limit="registers",
    bytes=4.8e6,
    flops=1e6,
    bound_microseconds=1.0,
    bound="memory",
    faults=(),
    notes=(),
)
BAD = dataclasses.replace(
    GOOD, variant="backward", stack_bytes=64, spills=9, faults=("spills registers: 64 bytes",)
)


@pytest.fixture
def report_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the command report given rows, without compiling."""

    def give(*rows: Row, triton: str = "3.8.0") -> None:
        monkeypatch.setattr(static_report, "make_report", lambda *_: list(rows))
        monkeypatch.setattr(static_report, "make_header", lambda: {**HEADER, "triton": triton})

    return give


def test_the_modules_import_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None; sys.modules['jax_triton'] = None\n"
        "import kernels.compiled, kernels.offline, kernels.static_report\n"
        "sys.exit(kernels.static_report.main([]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "pip install 'trellis-lab[triton]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_good_report_ends_with_0_and_shows_every_finding(
    report_of: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    report_of(GOOD)
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "published, not measured" in out
    for cell in cells(GOOD):
        assert cell in out


def test_a_fault_ends_with_1_and_is_named(
    report_of: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    report_of(GOOD, BAD)
    assert main([]) == 1
    assert "fault: toy backward sm_90: spills registers: 64 bytes" in capsys.readouterr().err


def test_a_report_equals_itself(report_of: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "results" / "report.json"
    report_of(GOOD, dataclasses.replace(GOOD, arch="sm_100"))
    assert main(["--out", str(path)]) == 0
    assert main(["--check", str(path)]) == 0


@pytest.mark.parametrize(
    "change", [{"registers": 41}, {"matrix": {}}, {"loads": {32: 2}}, {"variant": "forward W=32"}]
)
def test_a_change_ends_with_1_and_is_shown(
    change: dict,
    report_of: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "report.json"
    report_of(GOOD, dataclasses.replace(GOOD, arch="sm_80"))
    assert main(["--out", str(path)]) == 0
    capsys.readouterr()
    report_of(dataclasses.replace(GOOD, **change), dataclasses.replace(GOOD, arch="sm_80"))
    assert main(["--check", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    # The row that changed, and only that.
    assert [line[0] for line in lines if line[1:].startswith("{")] == ["-", "+"]


@pytest.mark.parametrize("selection", [["--arch", "sm_90"], ["toy"], ["toy", "--arch", "sm_90"]])
def test_only_what_is_compiled_is_compared(
    selection: list[str], report_of: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    others = [dataclasses.replace(GOOD, family="other", arch=arch) for arch in ("sm_80", "sm_100")]
    report_of(GOOD, *others)
    assert main(["--out", str(path)]) == 0
    report_of(GOOD)
    assert main([*selection, "--check", str(path)]) == 0
    # What is gone is a change.
    assert main(["--check", str(path)]) == 1


def test_a_report_of_another_triton_is_not_compared(
    report_of: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    report_of(GOOD)
    assert main(["--out", str(path)]) == 0
    report_of(GOOD, triton="3.6.0")
    assert main(["--check", str(path)]) == 2
    assert "Install triton==3.8.0" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "[]", "# Kernels"])
def test_what_is_no_report_is_refused(
    content: str | None,
    report_of: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    report_of(GOOD)
    assert main(["--check", str(path)]) == 2
    assert "--out" in capsys.readouterr().err


def test_an_output_of_another_kind_is_refused(
    report_of: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_of(GOOD)
    assert main(["--out", str(tmp_path / "report.html")]) == 2
    assert "must end in .json or .md" in capsys.readouterr().err


def test_json_holds_every_finding() -> None:
    report = json.loads(to_json([GOOD, BAD], HEADER))
    assert report["triton"] == "3.8.0"
    # JSON has text for keys and lists for tuples.
    assert report["kernels"] == [
        json.loads(json.dumps(dataclasses.asdict(row))) for row in (GOOD, BAD)
    ]


def test_markdown_has_a_table_for_each_architecture() -> None:
    text = to_markdown([GOOD, dataclasses.replace(GOOD, arch="sm_80"), BAD], HEADER)
    assert text.count("## sm_90") == text.count("## sm_80") == 1
    rows = [line for line in text.splitlines() if line.startswith("| toy")]
    assert len(rows) == 3
    assert {line.count("|") for line in rows} == {len(cells(GOOD)) + 1}


KERNEL = """
import triton
import triton.language as tl

from kernels.compiled import Variant


@triton.jit
def copy(inputs, outputs, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(outputs + i, tl.load(inputs + i))


class Config:
    num_warps, num_stages = 4, 2


def compiled_variants(arch):
    signature = {{"inputs": "*bf16", "outputs": "*bf16"}}
    for block in {blocks}:
        yield Variant(
            name=f"copy {{block}}",
            kernel=copy,
            signature=signature,
            constants={{"BLOCK": block}},
            config=Config(),
            bytes=4.0 * block,
            flops=0.0,
        )
"""


def add_family(name: str, source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "kernel.py").write_text(source)
    monkeypatch.setattr(kernels, "__path__", [*kernels.__path__, str(folder)])


def test_a_family_is_found_compiled_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    before = families()
    add_family("toy_copies", KERNEL.format(blocks=[1024, 2048]), tmp_path, monkeypatch)
    assert families() == [*before, "toy_copies"]
    path = tmp_path / "report.json"
    assert main(["toy_copies", "--out", str(path)]) == 0
    rows = json.loads(path.read_text())["kernels"]
    assert [(row["variant"], row["arch"]) for row in rows] == [
        (f"copy {block}", arch) for arch in ARCHITECTURES for block in (1024, 2048)
    ]
    assert {tuple(row["loads"]) for row in rows} == {("128",)}
    assert main(["toy_copies", "--check", str(path)]) == 0


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("toy_mute", "", "must define compiled_variants"),
        ("toy_stray", "compiled_variants = lambda arch: [('copy', 1)]", "must yield .*Variant"),
        ("toy_empty", KERNEL.format(blocks=[]), "nothing to compile"),
        ("toy_twice", KERNEL.format(blocks=[64, 64]), "names of their own"),
        ("toy_broken", KERNEL.format(blocks=[100]), "copy 100 must compile for sm_90"),
    ],
    ids=["mute", "stray", "empty", "twice", "broken"],
)
def test_a_family_that_cannot_be_reported_is_refused(
    name: str, source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    add_family(name, source, tmp_path, monkeypatch)
    with pytest.raises(ReportError, match=message):
        static_report.make_report([name], ["sm_90"])


def test_a_family_that_is_not_there_is_answered_with_those_that_are() -> None:
    pytest.importorskip("triton")
    with pytest.raises(ReportError, match=r"a family must be one of .*, got 'nothing'"):
        static_report.make_report(["nothing"], ["sm_90"])
