"""Published limits, and the occupancy that follows from them."""

import pytest

from kernels.architectures import ARCHITECTURES, find_architecture, occupancy


def test_a_name_that_is_not_known_is_answered_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"sm_80, sm_90, sm_100, got 'sm_75'"):
        find_architecture("sm_75")


def test_names_and_numbers_agree() -> None:
    assert {f"sm_{a.number}" for a in ARCHITECTURES.values()} == set(ARCHITECTURES)


# Blocks per multiprocessor from NVIDIA's occupancy calculator.
@pytest.mark.parametrize(
    ("arch", "registers", "shared_bytes", "warps", "blocks", "limit"),
    [
        ("sm_80", 32, 0, 4, 16, "warps"),
        ("sm_80", 32, 0, 1, 32, "blocks"),
        ("sm_80", 255, 0, 4, 2, "registers"),
        ("sm_80", 128, 0, 8, 2, "registers"),
        ("sm_80", 64, 80 * 1024, 4, 2, "shared"),
        ("sm_80", 64, 82 * 1024, 4, 1, "shared"),
        ("sm_90", 168, 0, 12, 1, "registers"),
        ("sm_90", 64, 100 * 1024, 4, 2, "shared"),
        ("sm_90", 64, 227 * 1024, 4, 1, "shared"),
        ("sm_100", 64, 227 * 1024 + 1, 4, 0, "shared"),
    ],
)
def test_occupancy(
    arch: str, registers: int, shared_bytes: int, warps: int, blocks: int, limit: str
) -> None:
    found = occupancy(
        find_architecture(arch), registers=registers, shared_bytes=shared_bytes, warps=warps
    )
    assert (found.blocks, found.limit, found.warps) == (blocks, limit, blocks * warps)


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_more_of_anything_never_lets_more_blocks_in(arch: str) -> None:
    architecture = find_architecture(arch)
    for warps in (1, 2, 4, 8, 16):
        by_registers = [
            occupancy(architecture, registers=r, shared_bytes=0, warps=warps).blocks
            for r in range(16, 256, 8)
        ]
        by_shared = [
            occupancy(architecture, registers=32, shared_bytes=s, warps=warps).blocks
            for s in range(0, 300_000, 10_000)
        ]
        assert by_registers == sorted(by_registers, reverse=True)
        assert by_shared == sorted(by_shared, reverse=True)
        assert by_shared[-1] == 0
