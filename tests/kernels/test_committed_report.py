"""The committed static report is what this tree compiles to, and nothing in it must not ship."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import kernels
from kernels import problems, static_report
from kernels.architectures import ARCHITECTURES

triton = pytest.importorskip("triton", reason="needs Triton, which is for Linux only")

REPORT = Path(kernels.__file__).parent / "results" / "static_report.json"
MADE_WITH = json.loads(REPORT.read_text())["triton"]


same_triton = pytest.mark.skipif(
    triton.__version__ != MADE_WITH, reason=f"made with triton {MADE_WITH}"
)


def first_of_each_kernel(family, arch):
    """A variant is named after its kernel, its shape and its dtype."""
    variants = reversed(list(static_report.variants(family, arch)))
    return {variant.name.partition("/")[0]: variant for variant in variants}.values()


@same_triton
@pytest.mark.parametrize("family", ["convolution", "ctc"])  # attention takes minutes
def test_each_kernel_is_what_the_committed_report_says(family, monkeypatch) -> None:
    chosen = list(first_of_each_kernel(family, "sm_90"))
    monkeypatch.setattr(static_report, "variants", lambda *_: chosen)
    found = [json.dumps(asdict(row)) for row in static_report.make_report([family], ["sm_90"])]
    names = {variant.name for variant in chosen}
    committed = [
        row
        for row in json.loads(REPORT.read_text())["kernels"]
        if (row["family"], row["arch"]) == (family, "sm_90") and row["variant"] in names
    ]
    assert sorted(found) == sorted(map(json.dumps, committed))


@pytest.mark.slow
@same_triton
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("family", problems.FAMILIES)
def test_the_committed_report_is_what_this_tree_compiles_to(family, arch, capsys) -> None:
    status = static_report.main([family, "--check", str(REPORT), "--arch", arch])
    assert status == 0, capsys.readouterr()


def test_the_report_has_every_variant() -> None:
    rows = json.loads(REPORT.read_text())["kernels"]
    for family in problems.FAMILIES:
        for arch in ARCHITECTURES:
            found = [r["variant"] for r in rows if (r["family"], r["arch"]) == (family, arch)]
            assert found == [variant.name for variant in static_report.variants(family, arch)]


def test_the_table_is_made_from_the_same_findings() -> None:
    report = json.loads(REPORT.read_text())
    table = REPORT.with_suffix(".md").read_text()
    rows = [line for line in table.splitlines() if line.startswith(tuple(_names(report)))]
    assert len(rows) == len(report["kernels"])
    # JSON has a family after the other, the tables an architecture after the other.
    found = sorted(report["kernels"], key=lambda row: [*ARCHITECTURES].index(row["arch"]))
    for row, line in zip(found, rows, strict=True):
        assert f"| {row['variant']} |".replace("| ", f"| {row['family']} ", 1) in line
        assert f"| {row['registers']} |" in line
    assert not any(row["faults"] for row in report["kernels"])


def _names(report):
    return {f"| {row['family']} {row['variant']} |" for row in report["kernels"]}
