"""The system call filter, assembled here: a classic BPF program (seccomp(2), linux/bpf_common.h).

What is refused is what Docker's default profile gates behind capabilities, and what has been the way out of containers
since: io_uring, userfaultfd, new mounts, namespaces. Everything is answered with an error, not a kill, so that honest
programs that only try (glibc tries clone3) find their other way; a foreign architecture is killed.
"""

from __future__ import annotations

import errno
import struct

from .kernel import MACHINE, NEW_ANY

# Instructions: BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_JMP|JSET|K, BPF_ALU|AND|K, BPF_RET|K
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]
_NR, _ARCH = 0, 4
_X32 = 0x40000000
#: AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: The last system call that was known when this was written (file_setattr, Linux 6.17); later ones do not exist here.
_LAST_KNOWN = 469

_UNIX, _INET, _INET6 = 1, 2, 10
_STREAM, _DATAGRAM, _PACKETS = 1, 2, 5
_ANY_PROTOCOL, _TCP, _UDP = 0, 6, 17
#: Terminal requests that put words into another program's mouth.
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_SHARED_PERSONALITY = (0, 0xFFFFFFFF)

#: Refused outright, as (x86_64, aarch64); None where the architecture never had it.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # mounts and roots
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457),
    "listmount": (458, 458), "open_tree_attr": (467, 467), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "fanotify_init": (300, 262),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "sysfs": (139, None), "ustat": (136, None),
    # namespaces
    "unshare": (272, 97), "setns": (308, 268), "sethostname": (170, 161), "setdomainname": (171, 162),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "move_pages": (279, 239), "migrate_pages": (256, 238), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    # keys, programs and faults in the kernel
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "memfd_secret": (447, 447),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "create_module": (174, None),
    "query_module": (178, None), "get_kernel_syms": (177, None), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "lookup_dcookie": (212, 18), "uselib": (134, None), "_sysctl": (156, None),
    "nfsservctl": (180, 42), "vserver": (236, None), "syslog": (103, 116), "vhangup": (153, 58),
    # the machine
    "reboot": (169, 142), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
}  # fmt: skip

#: Refused where no memory cgroup holds the box: their pages belong to no process, so no rlimit counts them.
_UNCOUNTED = {"memfd_create": (319, 279), "shmget": (29, 194)}

#: Calls that are looked at more closely.
_WATCHED = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "ioctl": (16, 29),
    "personality": (135, 92),
}


def program(machine: str = MACHINE, *, memory_is_held: bool = True) -> bytes:
    """Assemble the filter for an architecture; raises KeyError for one that it does not know."""
    column = list(_ARCHES).index(machine) if machine in _ARCHES else None
    if column is None:
        raise KeyError(machine)
    watched = {name: numbers[column] for name, numbers in _WATCHED.items()}
    refused = [numbers[column] for numbers in REFUSED.values()]
    if not memory_is_held:
        refused += [numbers[column] for numbers in _UNCOUNTED.values()]
    lines = [_line(_LOAD, _ARCH), *_unless_equal(_ARCHES[machine], _KILL), _line(_LOAD, _NR)]
    lines += _if(_AT_LEAST, _X32, _refuse(errno.ENOSYS))
    lines += _if(_AT_LEAST, _LAST_KNOWN + 1, _refuse(errno.ENOSYS))
    # Its arguments lie in memory, where a filter can't look: glibc falls back to clone.
    lines += _if(_EQUAL, watched["clone3"], _refuse(errno.ENOSYS))
    for number in sorted(number for number in refused if number is not None):
        lines += _if(_EQUAL, number, _refuse(errno.EPERM))
    lines += _when(watched["clone"], [_argument(0), *_if(_ANY_BIT, NEW_ANY, _refuse(errno.EPERM))])
    lines += _when(watched["ioctl"], [
        _argument(1), *_if(_EQUAL, _TIOCSTI, _refuse(errno.EPERM)), *_if(_EQUAL, _TIOCLINUX, _refuse(errno.EPERM)),
    ])  # fmt: skip
    lines += _when(watched["personality"], [_argument(0), *_only(_SHARED_PERSONALITY, errno.EPERM)])
    lines += _when(watched["socketpair"], [_argument(0), *_only((_UNIX,), errno.EAFNOSUPPORT)])
    lines += _when(watched["socket"], [
        _argument(0), *_only((_UNIX, _INET, _INET6), errno.EAFNOSUPPORT),
        _argument(1), _line(_AND, 0xF), *_only((_STREAM, _DATAGRAM, _PACKETS), errno.EPERM),
        _argument(2), *_only((_ANY_PROTOCOL, _TCP, _UDP), errno.EPROTONOSUPPORT),
    ])  # fmt: skip
    lines.append(_line(_RETURN, _ALLOW))
    return b"".join(lines)


def _line(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One struct sock_filter: the jumps count the lines to skip."""
    return struct.pack("=HBBI", code, yes, no, value)


def _argument(index: int) -> bytes:
    """Load the low half of an argument: flags, families and requests have no high half."""
    return _line(_LOAD, 16 + 8 * index)


def _refuse(number: int) -> int:
    return _ERRNO | number


def _if(test: int, value: int, answer: int) -> list[bytes]:
    return [_line(test, value, 0, 1), _line(_RETURN, answer)]


def _unless_equal(value: int, answer: int) -> list[bytes]:
    return [_line(_EQUAL, value, 1, 0), _line(_RETURN, answer)]


def _only(values: tuple[int, ...], number: int) -> list[bytes]:
    """Go on if the loaded value is one of these, else refuse."""
    tests = [_line(_EQUAL, value, len(values) - place, 0) for place, value in enumerate(values)]
    return [*tests, _line(_RETURN, _refuse(number))]


def _when(number: int, body: list[bytes]) -> list[bytes]:
    """Do these lines for one system call, which is allowed when none of them refused it."""
    return [_line(_EQUAL, number, 0, len(body) + 1), *body, _line(_RETURN, _ALLOW)]


#: The filters of this machine: by whether a memory cgroup holds the box.
PROGRAMS = {held: program(memory_is_held=held) if MACHINE in _ARCHES else b"" for held in (True, False)}
