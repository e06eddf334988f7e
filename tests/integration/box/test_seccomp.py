"""The filter's program as such: whatever the architecture, every jump lands inside, and every end is an answer."""

from __future__ import annotations

import struct

import pytest

from workers.sandboxes.box.inside import seccomp

_RETURN = 0x06
_JUMPS = {0x15, 0x35, 0x45}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_lands_inside_the_program(machine: str) -> None:
    lines = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    targets = [place + 1 + jump for place, (code, *jumps, _) in enumerate(lines) if code in _JUMPS for jump in jumps]
    assert max(targets) < len(lines) <= 4096
    assert lines[-1][0] == _RETURN


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_no_system_call_is_refused_under_two_names(machine: str) -> None:
    column = ["x86_64", "aarch64"].index(machine)
    numbers = [found[column] for found in seccomp.REFUSED.values() if found[column] is not None]
    assert len(numbers) == len(set(numbers))


def test_an_unknown_architecture_has_no_filter() -> None:
    with pytest.raises(KeyError):
        seccomp.program("riscv64")
