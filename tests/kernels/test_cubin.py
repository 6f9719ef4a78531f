"""Reading compiled kernels: what each instruction counts as."""

import sys
from pathlib import Path

import pytest

from kernels.cubin import count_ptx, count_sass, disassemble, resources


def sass(*operations: str) -> str:
    """Lines as cuobjdump prints them."""
    return "\n".join(
        f"        /*{16 * i:04x}*/                   {text} ;  /* 0x000fe200078e00ff */"
        for i, text in enumerate(operations)
    )


def test_widths_of_loads_and_stores_in_sass() -> None:
    counts = count_sass(
        sass(
            "LDG.E R4, [R2.64]",
            "@!P0 LDG.E.128.CONSTANT R4, [R2.64]",
            "LDGSTS.E.BYPASS.LTC128B.64 [R1], [R2.64]",
            "LDG.E.U16 R4, desc[UR4][R2.64]",
            "@P3 STG.E.128 [R2.64], R4",
            "STG.E.U8 [R2.64], R4",
            "LDS.128 R4, [R2]",
        )
    )
    assert counts.loads == {16: 1, 32: 1, 64: 1, 128: 1}
    assert counts.stores == {8: 1, 128: 1}


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("HMMA.16816.F32.BF16 R4, R8, R12, R4", "mma"),
        ("IMMA.16832.S8.S8 R4, R8.ROW, R12.COL, R4", "mma"),
        ("HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24", "wgmma"),
        ("QGMMA.64x128x32.F32.E4M3.E4M3 R24, gdesc[UR8], R24", "wgmma"),
        ("UTCHMMA gdesc[UR8], gdesc[UR10], tmem[UR4]", "tcgen05"),
        ("@UP0 UTCQMMA gdesc[UR8], gdesc[UR10], tmem[UR4]", "tcgen05"),
    ],
)
def test_matrix_instructions_in_sass(operation: str, kind: str) -> None:
    counts = count_sass(sass(operation, "FFMA R4, R5, R6, R7", "UTCBAR [UR4], URZ"))
    assert counts.matrix == {kind: 1}
    assert counts.double == 0


@pytest.mark.parametrize(
    "operation",
    [
        "DADD R4, R4, R6",
        "@P0 DFMA R4, R4, R6, R8",
        "DSETP.GT.AND P0, PT, R4, R6, PT",
        "F2F.F64.F32 R4, R3",
        "F2F.F32.F64 R4, R2",
        "I2F.F64.S32 R4, R3",
        "MUFU.RCP64H R5, R7",
    ],
)
def test_float64_in_sass(operation: str) -> None:
    assert count_sass(sass(operation)).double == 1


def test_what_is_wide_but_not_float64_in_sass() -> None:
    text = sass(
        "IMAD.WIDE.U32 R4, R5, 0x4, R6",
        "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R2], R3",
        "LDG.E.64 R4, [R2.64]",
        "DEPBAR.LE SB0, 0x1",
        "F2FP.BF16.F32.PACK_AB R4, R5, R6",
    )
    assert count_sass(text).double == 0


def test_spills_and_atomics_in_sass() -> None:
    counts = count_sass(
        sass("STL.128 [R1], R4", "@P0 LDL R4, [R1+0x8]", "RED.E.ADD.F32 [R2.64], R4")
    )
    assert counts.spills == 2
    assert counts.atomics == 1


def test_instructions_in_ptx() -> None:
    counts = count_ptx(
        """
        .reg .f64 %fd<4>;
        .reg .b32 %r<4>;
        @%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
        ld.global.L1::evict_last.L2::cache_hint.v2.b64 { %rd1, %rd2 }, [ %rd3 + 0 ], %rd9;
        ld.global.b16 { %rs1 }, [ %rd1 + 0 ];
        st.global.v2.b32 [ %rd3 + 0 ], { %r1, %r2 };
        cp.async.cg.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x10, %r2;
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 { %r1 }, { %r2 }, { %r3 }, { %r4 };
        wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 { %r1 }, %rd1, %rd2, 1, 1, 1, 0, 0;
        cvt.f64.f32 %fd1, %r1;
        @%p2 mul.f64 %fd2, %fd1, %fd1;
        atom.global.gpu.relaxed.add.f32 %r1, [ %rd1 + 0 ], %r2;
        """
    )
    assert counts.loads == {16: 1, 128: 3}
    assert counts.stores == {64: 1}
    assert counts.matrix == {"mma": 1, "wgmma": 1}
    assert counts.double == 2
    assert counts.atomics == 1
    assert counts.spills is None


def test_what_is_no_cubin_is_refused() -> None:
    with pytest.raises(ValueError, match="must start with the ELF mark"):
        resources(b"// PTX")


def test_a_tool_that_fails_is_reported() -> None:
    with pytest.raises(RuntimeError, match="must disassemble the cubin"):
        disassemble(b"", Path(sys.executable))
