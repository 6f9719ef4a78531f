"""Counting the instructions of a loop: which loop, and which instructions."""

import importlib.util

import pytest

from kernels import loops

pytestmark = pytest.mark.usefixtures("in_haste")

# An outer loop from 0x10 to 0x90 with an inner one from 0x20 to 0x60, a loop of its own at 0xb0,
# and the branch to itself that ends a kernel.
NESTED = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;      /* 0x00000a0000017a02 */
                                                               /* 0x003fde0000000f00 */
        /*0010*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0020*/                   SHFL.UP PT, R3, R3, 0x1, RZ ;
        /*0030*/              @!P0 LDG.E R4, [R2.64] ;
        /*0040*/                   STG.E.64 [R2.64], R4 ;
        /*0050*/                   MUFU.EX2 R5, R5 ;
        /*0060*/              @!P1 BRA 0x20 ;
        /*0070*/                   LDS R6, [R7] ;
        /*0080*/               @P2 BRA 0xa0 ;
        /*0090*/              @UP0 BRA.U 0x10 ;
        /*00a0*/                   STS [R7], R6 ;
        /*00b0*/                   LDS.64 R8, [R9] ;
        /*00c0*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*00d0*/               @P0 BRA 0xb0 ;
        /*00e0*/                   EXIT ;
        /*00f0*/                   BRA 0xf0;
"""


def test_the_loops_that_contain_no_other():
    inner, alone = loops.innermost_loops(NESTED)
    assert inner == loops.Loop(
        instructions=5, shuffles=1, barriers=0, special=1, shared=0, loads=1, stores=1
    )
    assert alone == loops.Loop(
        instructions=3, shuffles=0, barriers=1, special=0, shared=1, loads=0, stores=0
    )


def test_no_loop():
    assert loops.innermost_loops("/*0000*/ MOV R1, R2 ; /*0010*/ EXIT ; /*0020*/ BRA 0x20;") == []


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_a_table_of_a_family(monkeypatch, capsys):
    one = next(iter(loops.variants("ctc", "sm_90")))
    asked = []

    def largest(variant, arch):
        asked.append(arch)
        return loops.Loop(10, 4, 2, 0, 0, 3, 1)

    monkeypatch.setattr(loops, "variants", lambda family, arch: [one])
    monkeypatch.setattr(loops, "largest_loop", largest)
    assert loops.main(["ctc", "--arch", "sm_80", "--arch", "sm_90"]) == 0
    printed = capsys.readouterr().out
    assert asked == ["sm_80", "sm_90"]
    assert one.name in printed
    assert "instructions" in printed


def test_what_cannot_be_compiled_is_an_error(capsys):
    assert loops.main(["no_such_family"]) == 2
    assert "no_such_family" in capsys.readouterr().err
