"""Words that attacks share; each becomes part of a hostile program's source."""

from __future__ import annotations

from workers.sandboxes.box.inside import seccomp
from workers.sandboxes.box.inside.kernel import MACHINE

#: `call(number, ...)` makes a raw system call and gives the error's name, or DONE when it was let through.
CALL = """
import ctypes, errno, os
_libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    found = _libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return errno.errorcode[ctypes.get_errno()] if found < 0 else "DONE"
def attempt(act, *arguments):
    try:
        return f"DONE {act(*arguments)!r}"[:200]
    except OSError as refusal:
        return errno.errorcode.get(refusal.errno, str(refusal))
"""

_COLUMN = {"x86_64": 0, "aarch64": 1}[MACHINE]

#: name -> number on this machine.
REFUSED = {name: numbers[_COLUMN] for name, numbers in seccomp.REFUSED.items() if numbers[_COLUMN] is not None}
CLONE, CLONE3 = ((56, 435), (220, 435))[_COLUMN]
