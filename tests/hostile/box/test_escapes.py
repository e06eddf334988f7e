"""Programs that want out: to the host's files, processes, kernel or identity."""

# Hostile programs stand on one line each, however long.
# ruff: noqa: E501

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.box.attacks import CALL, CLONE, CLONE3, REFUSED
from tests.integration.box.boxes import ignore_output, python, shell
from workers.sandboxes.box.base import Exited, Returned
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.inside import kernel

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def value_of(box: NamespaceBox, source: str, **inputs: Any) -> Any:
    found = await box.run_python(python(CALL + source, inputs=inputs), ignore_output)
    assert isinstance(found, Returned), found
    return found.value


@pytest.mark.parametrize("name", REFUSED)
async def test_a_dangerous_system_call_is_refused(box: NamespaceBox, name: str) -> None:
    found = await value_of(box, "def main(number): return call(number, 0, 0, 0, 0, 0, 0)", number=REFUSED[name])
    assert found == "EPERM"


NEW = {name: getattr(kernel, f"NEW_{name}") for name in ("MOUNT", "CGROUP", "UTS", "IPC", "USER", "PID", "NET")}


@pytest.mark.parametrize("name", NEW)
async def test_no_process_is_born_into_a_new_namespace(box: NamespaceBox, name: str) -> None:
    source = "def main(number, flag): return call(number, flag | 17, 0, 0, 0, 0)"
    assert await value_of(box, source, number=CLONE, flag=NEW[name]) == "EPERM"


#: name -> (source of main, what a good refusal is)
REFUSALS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "clone3, whose flags no filter can read": (
        f"def main(): return call({CLONE3}, ctypes.create_string_buffer(88), 88)",
        lambda found: found == "ENOSYS",
    ),
    "a system call that no kernel has yet": ("def main(): return call(9999)", lambda found: found == "ENOSYS"),
    "an address space without randomness": (
        "def main(): return ctypes.CDLL(None).personality(0x0040000)",
        lambda found: found == -1,
    ),
    "typing on the worker's terminal": (
        "import fcntl\ndef main(): return [attempt(fcntl.ioctl, fd, 0x5412, b'x') for fd in (0, 1, 2)]",
        lambda found: set(found) == {"EPERM"},
    ),
    "a controlling terminal": (
        "def main(): return attempt(os.open, '/dev/tty', 2)",
        lambda found: found in {"ENOENT", "ENXIO"},
    ),
    "becoming root": (
        "def main(): return [attempt(os.setuid, 0), attempt(os.setgid, 0), attempt(os.setgroups, [0])]",
        lambda found: not any(answer.startswith("DONE") for answer in found),
    ),
    "becoming another user of the host": (
        "def main(): return [attempt(os.setresuid, id, id, id) for id in (1, 33, 999, 65534)]",
        lambda found: not any(answer.startswith("DONE") for answer in found),
    ),
    "a device node": (
        "import stat\ndef main(): return [attempt(os.mknod, '/work/d', kind | 0o666, os.makedev(*device))\n"
        "    for kind, device in ((stat.S_IFBLK, (254, 0)), (stat.S_IFCHR, (1, 1)))]",
        lambda found: set(found) == {"EPERM"},
    ),
    "opening a disk": (
        "import glob\ndef main(): return [p for p in glob.glob('/dev/*') if 'sd' in p or 'vd' in p or 'mem' in p or 'kvm' in p]",
        lambda found: found == [],
    ),
    "writing to the system": (
        "def main(): return [attempt(open, p, 'w') for p in ('/usr/x', '/etc/passwd', '/x', '/bin/sh', '/opt/flo/x', '/dev/x')]",
        lambda found: not any(answer.startswith("DONE") for answer in found),
    ),
    "a hard link to the system": (
        "def main(): return attempt(os.link, '/usr/bin/env', '/work/env')",
        lambda found: found in {"EXDEV", "EPERM", "EROFS"},
    ),
    "writing into the Python that is shared": (
        "import json, sys\ndef main():\n    places = [json.__file__, json.__cached__, os.__file__, sys.executable, sys.path[0] + '/x.py']\n"
        "    return [attempt(open, p, 'r+b' if os.path.exists(p) else 'wb') for p in places if p]",
        lambda found: not any(answer.startswith("DONE") for answer in found),
    ),
    "the host's secrets": (
        "def main(): return [p for p in ('/etc/shadow', '/root', '/home', '/var/run/docker.sock', '/run/docker.sock', '/sys',\n"
        "    '/boot', '/var/lib', '/var/log', '/etc/ssh', '/etc/machine-id', '/etc/resolv.conf', '/mnt', '/srv') if os.path.exists(p)]",
        lambda found: found == [],
    ),
    "files of the kernel in /proc": (
        "def main(): return [attempt(lambda: open(p, 'rb').read(1)) for p in ('/proc/kcore', '/proc/keys', '/proc/kallsyms',\n"
        "    '/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/proc/kmsg', '/proc/timer_list', '/proc/sched_debug',\n"
        "    '/proc/kpagecount', '/proc/config.gz', '/proc/scsi/scsi', '/proc/acpi', '/proc/bus/pci/devices', '/proc/cmdline')]",
        lambda found: not any(answer.startswith("DONE b'") and answer != "DONE b''" for answer in found),
    ),
    "writing to /proc": (
        "def main(): return [attempt(lambda: open(p, 'wb', 0).write(b'1')) for p in ('/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern',\n"
        "    '/proc/sys/vm/overcommit_memory', '/proc/sys/kernel/hostname', '/proc/irq/0/smp_affinity')]",
        lambda found: not any(answer.startswith("DONE") for answer in found),
    ),
    "pid 1's memory, environment, files and root": (
        "def main(): return [attempt(lambda: open(f'/proc/1/{n}', 'rb').read(10)) for n in ('mem', 'environ', 'maps', 'auxv')]\\\n"
        "    + [attempt(os.listdir, f'/proc/1/{n}') for n in ('fd', 'root', 'cwd', 'map_files')] + [attempt(open, '/proc/1/mem', 'r+b')]",
        lambda found: not any(answer.startswith("DONE") for answer in found),
    ),
    "walking up through /proc": (
        "def main(): return [os.path.exists(f'/proc/{p}/root/etc/shadow') for p in ('1', 'self', 'thread-self')]",
        lambda found: found == [False, False, False],
    ),
    "joining pid 1's namespaces": (
        "def main(): return [attempt(os.open, f'/proc/1/ns/{n}', 0) for n in ('mnt', 'net', 'pid', 'user', 'ipc', 'uts', 'cgroup')]",
        lambda found: not any(answer.startswith("DONE") for answer in found),
    ),
    "signals to pid 1 and to all": (
        "import signal\ndef main():\n    for n in (9, 15, 19, 2, 11, 6, 17):\n        attempt(os.kill, 1, n)\n"
        "    return [attempt(os.kill, os.getppid(), 9) and 'still here']",
        lambda found: found == ["still here"],
    ),
    "signals to processes of the host": (
        f"def main(): return [attempt(os.kill, {os.getpid()}, 0), attempt(os.kill, {os.getppid()}, 0)]",
        lambda found: set(found) <= {"ESRCH", "EPERM"},
    ),
    "seeing processes of the host": (
        "def main(): return len([p for p in os.listdir('/proc') if p.isdigit()])",
        lambda found: found <= 3,
    ),
    "writing its own id maps anew": (
        "def main(): return [attempt(lambda: open(f'/proc/self/{n}', 'wb', 0).write(b'0 0 1')) for n in ('uid_map', 'gid_map', 'setgroups')]",
        lambda found: not any(answer.startswith("DONE") for answer in found),
    ),
    "getting off the out-of-memory list": (
        "def main(): return attempt(lambda: open('/proc/self/oom_score_adj', 'wb', 0).write(b'-1000'))",
        lambda found: found in {"EACCES", "EPERM"},
    ),
    "giving back no_new_privs and the filter": (
        "def main(): return [ctypes.CDLL(None).prctl(38, 0, 0, 0, 0), ctypes.CDLL(None).prctl(22, 0, 0, 0, 0)]",
        lambda found: found == [-1, -1],
    ),
    "capabilities by prctl and capset": (
        "def main(): return [ctypes.CDLL(None).prctl(47, 2, n, 0, 0) for n in (21, 12, 7)] + [ctypes.CDLL(None).prctl(28, 0, 0, 0, 0)]",
        lambda found: set(found) == {-1},
    ),
    "being dumpable, and then read by a sibling": (
        "def main():\n    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n    child = os.fork()\n    if child == 0:\n"
        "        import time; time.sleep(60)\n    return attempt(lambda: os.listdir('/proc/1/fd'))",
        lambda found: not found.startswith("DONE"),
    ),
    "cgroups": (
        "def main(): return [os.path.exists('/sys/fs/cgroup'), open('/proc/self/cgroup').read()]",
        lambda found: found[0] is False and "flo." not in found[1],
    ),
    "other fds than its own": (
        "def main():\n    seen = {}\n    for n in os.listdir('/proc/self/fd'):\n        try: seen[n] = os.readlink(f'/proc/self/fd/{n}')\n"
        "        except OSError: pass\n    return sorted(seen)",
        lambda found: set(found) <= {"0", "1", "2", "3", "4"},
    ),
    "keeping the answer's pipe open in a daemon": (
        "def main():\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            import time; time.sleep(3600)\n        os._exit(0)\n    return 'main'",
        lambda found: found == "main",
    ),
    "the zygote's modules": (
        "import sys\ndef main(): return [n for n in ('inside.zygote', 'inside.supervisor') if n in sys.modules and hasattr(sys.modules[n], '_door')]",
        lambda found: found == [],
    ),
    "frames of its caller": (
        "import sys\ndef main():\n    f = sys._getframe(); names = set()\n    while f: names |= set(f.f_locals); f = f.f_back\n"
        "    return sorted(names & {'door', 'order', 'fds', 'body'})",
        lambda found: True,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_an_escape_is_refused(box: NamespaceBox, name: str) -> None:
    source, is_refusal = REFUSALS[name]
    found = await value_of(box, source)
    assert is_refusal(found), found


async def test_x32_system_calls_are_not_there(box: NamespaceBox) -> None:
    assert await value_of(box, "def main(): return call(0x40000000 | 39)") == "ENOSYS"


async def test_a_setuid_program_gives_nothing(box: NamespaceBox) -> None:
    found = await box.run(
        shell("for p in /usr/bin/su /bin/su /usr/bin/passwd; do [ -u $p ] && $p -c id </dev/null; done; id -u"),
        ignore_output,
    )
    assert isinstance(found, Exited)
    assert found.stdout.splitlines()[-1] == b"1000"
    assert b"uid=0" not in found.stdout


async def test_a_written_program_runs_with_no_more_rights_than_its_writer(box: NamespaceBox) -> None:
    found = await box.run(shell("cp /usr/bin/id ./mine && chmod 4755 ./mine && ./mine -u"), ignore_output)
    assert isinstance(found, Exited)
    assert found.stdout == b"1000\n"


@pytest.mark.parametrize("tool", ["mount -t tmpfs x /tmp", "mount -o remount,rw /usr", "mount --bind / /tmp", "umount /proc", "unshare -Ur true",
                                  "chroot / true", "nsenter -t 1 -m true", "hostname evil", "mknod /tmp/d b 254 0", "sysctl -w kernel.x=1",
                                  "dmesg", "swapoff /tmp/x", "pivot_root . .", "insmod x", "reboot -f"])  # fmt: skip
async def test_the_tools_of_administrators_fail(box: NamespaceBox, tool: str) -> None:
    found = await box.run(shell(f"PATH=$PATH:/usr/sbin:/sbin; {tool}"), ignore_output)
    assert isinstance(found, Exited)
    assert found.code != 0


async def test_chroot_and_chdir_games_stay_inside(box: NamespaceBox) -> None:
    source = "def main():\n    os.mkdir('/work/j')\n    r = attempt(os.chroot, '/work/j')\n    for _ in range(64): os.chdir('..')\n    return [r, sorted(os.listdir('.')) == sorted(os.listdir('/')), os.path.exists('root')]"
    assert await value_of(box, source) == ["EPERM", True, False]


async def test_the_workers_environment_is_nowhere(box: NamespaceBox, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = secrets.token_hex(16)
    monkeypatch.setenv("FLO_API_KEY", secret)
    source = "import glob\ndef main(start):\n    text = str(dict(os.environ))\n    for p in glob.glob('/proc/*/environ'):\n        try: text += open(p).read()\n        except OSError: pass\n    return start in text"
    assert await value_of(box, source, start=secret[:8]) is False


async def test_a_file_of_the_worker_is_not_there(box: NamespaceBox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("host")
    assert await value_of(box, "def main(path): return os.path.exists(path)", path=str(tmp_path / "secret")) is False


async def test_an_abstract_socket_of_the_host_is_out_of_reach(box: NamespaceBox) -> None:
    name = f"flo-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        source = "import socket\ndef main(name): return attempt(socket.socket(socket.AF_UNIX).connect, '\\0' + name)"
        assert await value_of(box, source, name=name) == "ECONNREFUSED"


async def test_a_daemon_does_not_outlive_its_box(box: NamespaceBox) -> None:
    marker = str(secrets.randbelow(10**9) + 10**9)
    found = await box.run(
        shell(f"setsid -f sleep {marker}; (setsid sh -c 'trap \"\" TERM HUP; sleep {marker}' &) ; exit 0"),
        ignore_output,
    )
    assert isinstance(found, Exited)
    assert not [line for line in command_lines() if marker.encode() in line]


def command_lines() -> list[bytes]:
    """The command line of every process of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found


LEFT_BEHIND = {
    "a symlink to a secret": "ln -s /etc/passwd out",
    "a symlink above": "ln -s ../etc/passwd out",
    "a symlinked folder": "ln -s /etc dir; exit 0",
    "a pipe": "mkfifo out",
    "a socket": "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"out\")'",
    "a folder": "mkdir out",
    "a symlink to itself": "ln -s out out",
    "the process's own memory": "ln -s /proc/self/mem out",
    "an unreadable file": "echo x >out; chmod 0 out; mv out gone",
}


@pytest.mark.parametrize("name", LEFT_BEHIND)
async def test_only_regular_files_of_the_work_folder_come_out(box: NamespaceBox, name: str) -> None:
    found = await box.run(shell(LEFT_BEHIND[name], collect=("out", "dir/passwd")), ignore_output)
    assert isinstance(found, Exited)
    assert found.files == {}
    assert set(found.missing) == {"out", "dir/passwd"}


async def test_a_file_that_is_swapped_while_it_is_collected_gains_nothing(box: NamespaceBox) -> None:
    script = (
        "echo good >out; (while :; do ln -sf /etc/passwd x; mv x out; echo good >y; mv y out; done) & sleep 0.2; exit 0"
    )
    found = await box.run(shell(script, collect=("out",)), ignore_output)
    assert isinstance(found, Exited)
    assert found.files.get("out", b"good\n") == b"good\n"


async def test_collecting_more_than_the_limit_is_told(box: NamespaceBox) -> None:
    found = await box.run(
        shell("head -c 200000 /dev/zero >out; truncate -s 1M big", collect=("out", "big")), ignore_output
    )
    assert not isinstance(found, Exited)
    assert found.error.details == {"limit": 100_000, "raise_with": "max_output_bytes"}
