"""The system calls that Python has no function for, on x86_64 and aarch64.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h. No C helper: users' machines
have no compiler. `PyDLL` keeps the interpreter lock, so a raw fork leaves no other thread's lock behind.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal

# clone(2) flags
NEW_TIME = 0x80
NEW_MOUNT = 0x20000
NEW_CGROUP = 0x2000000
NEW_UTS = 0x4000000
NEW_IPC = 0x8000000
NEW_USER = 0x10000000
NEW_PID = 0x20000000
NEW_NET = 0x40000000
#: Every kind of namespace that clone(2) can make.
NEW_ANY = NEW_MOUNT | NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_USER | NEW_PID | NEW_NET

# mount(2) flags
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

# mount_setattr(2)
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
ATTR_RDONLY = 1
ATTR_NOSUID = 2
ATTR_NODEV = 4
ATTR_NOEXEC = 8

# openat2(2)
RESOLVE_NO_MAGICLINKS = 2
RESOLVE_NO_SYMLINKS = 4
RESOLVE_BENEATH = 8

# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_SECUREBITS = 28
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
#: capabilities(7): SECBIT_NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE set, KEEP_CAPS cleared; all locked.
SECUREBITS_LOCKED = 0xEF
SECBIT_NO_SETUID_FIXUP = 4
_LAST_CAPABILITY = 63

_NUMBERS = {
    # name: (x86_64, aarch64)
    "clone": (56, 220),
    "pivot_root": (155, 41),
    "capset": (126, 91),
    "openat2": (437, 437),
    "mount_setattr": (442, 442),
}

MACHINE = platform.machine()
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(MACHINE)

_libc = ctypes.PyDLL(None, use_errno=True)


def supported() -> bool:
    """Tell whether the system call numbers of this machine are known."""
    return _COLUMN is not None


def clone(flags: int) -> int:
    """Fork into new namespaces; 0 in the child, as in fork(2)."""
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _libc.syscall(_number("clone"), ctypes.c_ulong(flags | signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    return _check(pid, "clone into new namespaces")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    _check(
        _libc.mount(
            source.encode(),
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            options.encode() if options else None,
        ),
        f"mount {target}",
    )


def unmount(target: str) -> None:
    """Detach a mount, though it be busy."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def restrict_mount(target: str, attributes: int) -> None:
    """Set attributes on a mount and all below it (mount_setattr(2), Linux 5.12)."""
    given = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    _check(
        _libc.syscall(
            _number("mount_setattr"),
            _AT_FDCWD,
            target.encode(),
            _AT_RECURSIVE,
            ctypes.byref(given),
            ctypes.sizeof(given),
        ),
        f"restrict the mount {target}",
    )


def pivot_root_here() -> None:
    """Make the working directory the root, and let go of the old one (pivot_root(2), "pivot_root(".", ".")")."""
    _check(_libc.syscall(_number("pivot_root"), b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


def prctl(option: int, value: int = 0, third: int = 0) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(third), 0, 0), f"prctl {option}")


def drop_capabilities() -> None:
    """Give up every capability, also those that an exec could bring back (capabilities(7))."""
    prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            if ctypes.get_errno() == errno.EINVAL:
                break  # past the last one that this kernel knows
            if ctypes.get_errno() == errno.EPERM:
                break  # had none to begin with, and no way to any: no_new_privs holds
            _check(-1, "drop a capability")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc.syscall(_number("capset"), ctypes.byref(header), ctypes.byref(nothing)), "capset")


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]


def filter_syscalls(program: bytes) -> None:
    """Hold this process and its children to a seccomp program, for good."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    given = _Filter(len(program) // 8, program)
    _check(
        _libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(given), 0, 0), "install seccomp"
    )


def open_beneath(folder: int, name: str, flags: int) -> int:
    """Open a file below a folder, meeting no symlink on the way (openat2(2), Linux 5.6)."""
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    found = _libc.syscall(_number("openat2"), folder, os.fsencode(name), ctypes.byref(how), ctypes.sizeof(how))
    return _check(found, name)


def _number(name: str) -> int:
    if _COLUMN is None:
        raise OSError(errno.ENOSYS, f"no system call numbers for {MACHINE}")
    return _NUMBERS[name][_COLUMN]


def _check(result: int, doing: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), doing)
    return result
