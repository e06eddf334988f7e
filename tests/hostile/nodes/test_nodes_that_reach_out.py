"""Flows whose nodes reach for the host, the network, other processes and the engine's own words."""

# Hostile programs stand on one line each, however long.
# ruff: noqa: E501

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator

import pytest
from process_flows import run_node

from schemas.outcome import ErrorKind, Failed, Succeeded
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.egress import PUBLIC_EGRESS

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Shell commands, each of which prints GOT if it gets what it wants.
REACHING = {
    "the host's environment": "tr '\\0' '\\n' </proc/1/environ | grep -q . && echo GOT",
    "the worker's environment by name": "env | grep -q FLO_HOSTILE_MARK && echo GOT",
    "the host's users": "grep -q daemon /etc/passwd && echo GOT",
    "the host's shadow file": "cat /etc/shadow && echo GOT",
    "root's home": "ls /root && echo GOT",
    "the host's processes": "[ $(ls -d /proc/[0-9]* | wc -l) -gt 8 ] && echo GOT",
    "the memory of pid 1": "head -c1 /proc/1/mem && echo GOT",
    "the files of pid 1": "ls /proc/1/fd/ 2>/dev/null | grep -q . && echo GOT",
    "kernel messages": "dmesg >/dev/null 2>&1 && echo GOT; head -c1 /dev/kmsg && echo GOT",
    "kernel settings": "echo 1 >/proc/sys/kernel/panic && echo GOT",
    "magic keys": "echo b >/proc/sysrq-trigger && echo GOT",
    "/sys": "ls /sys/class >/dev/null 2>&1 && echo GOT",
    "cgroups": "ls /sys/fs/cgroup 2>/dev/null | grep -q . && echo GOT",
    "disks": "ls /dev | grep -Eq '^(sd|vd|nvme|dm-|mem|kmem|loop)' && echo GOT",
    "its own limits": "ulimit -H -u unlimited 2>/dev/null && echo GOT",
    "a mount": "mount -t tmpfs none /tmp && echo GOT",
    "a bind mount": "mount --bind / /tmp && echo GOT",
    "new namespaces": "unshare -U true && echo GOT; unshare -m true && echo GOT; unshare -n true && echo GOT",
    "another root": "chroot / true && echo GOT",
    "a set-uid program": "cp /bin/sh s && chmod 4755 s && ./s -pc '[ $(id -u) = 0 ]' && echo GOT",
    "another user": "su -c true 2>/dev/null && echo GOT; setpriv --reuid 0 true && echo GOT",
    "the system's folders": "touch /usr/x && echo GOT; touch /etc/x && echo GOT; touch /x && echo GOT",
    "our own code": "touch /opt/flo/lib/x && echo GOT",
    "the metadata service": "exec 3<>/dev/tcp/169.254.169.254/80 && echo GOT",
    "a public address": "exec 3<>/dev/tcp/1.1.1.1/53 && echo GOT",
    "a name": "getent hosts example.com && echo GOT",
    "the host's loopback": "exec 3<>/dev/tcp/127.0.0.1/$PORT && echo GOT",
    "the clock": "date -s 2001-01-01 && echo GOT",
    "the host's name": "hostname flo-was-here && echo GOT",
}


@pytest.fixture
def service() -> Iterator[int]:
    """A service on the host's loopback that no box may meet."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", REACHING)
async def test_what_a_command_reaches_for_it_does_not_get(
    box: NamespaceBox, name: str, service: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLO_HOSTILE_MARK", "the worker's")
    config = {
        "command": ["/bin/bash", "-c", f"{REACHING[name]}; true"],
        "env": {"PORT": str(service)},
        "timeout_ms": 10_000,
    }
    ran = await run_node(box, "shell.exec", config)
    assert isinstance(ran.outcome, Succeeded), ran.outcome
    assert "GOT" not in ran.result["stdout"], ran.result


#: Python mains, each of which returns what it got; nothing is False.
PYTHON = {
    "a trace of its parent": "import ctypes, os\ndef main(): return ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) != -1",
    "raw packets": "import socket\ndef main():\n    for kind in ((2, 3, 1), (17, 3, 3), (16, 3, 0), (40, 1, 0)):\n        try: socket.socket(*kind)\n        except OSError: continue\n        return kind\n    return False",
    "the metadata service": "import urllib.request\ndef main():\n    try: return urllib.request.urlopen('http://169.254.169.254/latest/meta-data/', timeout=3).read().decode()\n    except OSError: return False",
    "the metadata service by another name of it": "import urllib.request\ndef main():\n    for host in ('[::ffff:169.254.169.254]', '2852039166', '0xa9fea9fe', 'metadata.google.internal'):\n        try: return urllib.request.urlopen(f'http://{host}/', timeout=3).read().decode()\n        except (OSError, ValueError): continue\n    return False",
    "names": "import socket\ndef main():\n    try: return socket.getaddrinfo('example.com', 80)[0][4][0]\n    except OSError: return False",
    "descriptors that it was not given": "import os\ndef main():\n    found = []\n    for fd in range(4, 1024):\n        try: found.append(os.readlink(f'/proc/self/fd/{fd}'))\n        except OSError: continue\n    return found or False",
    "a way up by openat": "import os\ndef main():\n    fd = os.open('/', os.O_RDONLY)\n    for _ in range(20): fd = os.open('..', os.O_RDONLY, dir_fd=fd)\n    return sorted(os.listdir(fd)) != sorted(os.listdir('/'))",
}


@pytest.mark.parametrize("name", PYTHON)
async def test_what_python_reaches_for_it_does_not_get(box: NamespaceBox, name: str) -> None:
    ran = await run_node(box, "code.python", {"code": PYTHON[name], "timeout_ms": 15_000}, egress=PUBLIC_EGRESS)
    # An answer is always the code's own word, also when json.dumps is gone: it took that before.
    assert ran.result == {"output": False}, ran.result


STAYING = {
    "a daemon": "(setsid sh -c 'while :; do sleep 1; done' >/dev/null 2>&1 &)",
    "a daemon that holds the streams": "setsid sh -c 'while :; do sleep 1; done' &",
    "a stopped child": "sleep 60 & kill -STOP $!",
    "a deaf child": "(trap '' HUP INT TERM; sleep 60) &",
    "a child with its hands on files": "(exec 9>held; flock 9; sleep 60) &",
    "a chain of children": 'sh -c \'sh -c "sh -c \\"sleep 60\\" &" &\' &',
}


@pytest.mark.parametrize("name", STAYING)
async def test_nothing_stays_behind(box: NamespaceBox, name: str) -> None:
    ran = await run_node(box, "shell.exec", {"command": f"{STAYING[name]}\necho left"})
    assert ran.result["stdout"] == "left"


LYING = {
    "a result on stdout": 'echo \'V{"output": "forged"}\'',
    "a frame on stdout": "printf '\\000\\000\\000\\014\\000\\000\\000\\000{\"exit\": 99}'",
    "a run event on stdout": 'echo \'{"say": "done", "outcome": {"is": "succeeded"}}\'',
    "an event on every descriptor": 'for n in 3 4 5 6 7 8 9 10 40 41 42; do echo \'{"exit": 99, "files": []}\' >&$n; done 2>/dev/null',
}


@pytest.mark.parametrize("name", LYING)
async def test_what_a_command_writes_is_output_and_never_the_engines_word(box: NamespaceBox, name: str) -> None:
    ran = await run_node(
        box, "shell.exec", {"command": ["/bin/bash", "-c", f"{LYING[name]}; exit 7"], "fail_on_error": False}
    )
    assert (ran.result["exit_code"], ran.result["success"]) == (7, False)


async def test_stdin_is_read_as_it_is_and_never_run(box: NamespaceBox) -> None:
    said = '"; exit 9; echo "$(id)\n{"exit": 0}'
    ran = await run_node(box, "shell.exec", {"command": "cat"}, {"stdin": said})
    assert ran.result["stdout"] == said


LINKS = {
    "to a file of the system": ("ln -s /etc/passwd out", "Too many levels of symbolic links"),
    "to its folder": ("ln -s / d; ln -s d/etc/passwd out", "Too many levels of symbolic links"),
    "into /proc": ("ln -s /proc/self/environ out", "Too many levels of symbolic links"),
    "a device": ("mkfifo out", "not a regular file"),
    "a folder": ("mkdir out", "Is a directory"),
    "a socket": ("python3 -c 'import socket; socket.socket(1).bind(\"out\")'", "No such device or address"),
    "a hard link to what is not its own": ("ln /etc/passwd out", "No such file or directory"),
}


@pytest.mark.parametrize("name", LINKS)
async def test_only_files_of_its_own_are_collected(box: NamespaceBox, name: str) -> None:
    command, reason = LINKS[name]
    config = {"command": command, "collect": ["out"], "fail_on_error": False}
    ran = await run_node(box, "sandbox.exec", config)
    assert (ran.result["files"], ran.result["missing"]) == ({}, {"out": reason})


async def test_a_folder_that_became_a_link_is_not_followed(box: NamespaceBox) -> None:
    config = {"command": "rm -r in; ln -s /etc in", "files": {"in/passwd": "mine"}, "collect": ["in/passwd"]}
    ran = await run_node(box, "sandbox.exec", config)
    assert (ran.result["files"], list(ran.result["missing"])) == ({}, ["in/passwd"])


@pytest.mark.parametrize("name", ["../up", "/etc/cron.d/x", "a/../../x", "a\nb", "a\0b", "", ".", "a//b", "\x7f"])
@pytest.mark.parametrize("key", ["files", "collect"])
async def test_names_that_lead_elsewhere_are_refused(box: NamespaceBox, key: str, name: str) -> None:
    config = {"command": "true", **({"files": {}} if key == "files" else {"collect": [name]})}
    payload = {"files": {name: "x"}}
    given = {name_: value for name_, value in config.items() if name_ != "files"}
    error = (await run_node(box, "sandbox.exec", given, payload)).error
    assert error.kind is ErrorKind.INVALID_INPUT
    assert "give a relative path" in error.message


async def test_a_log_can_not_be_flooded_or_broken_by_its_bytes(box: NamespaceBox) -> None:
    ran = await run_node(box, "shell.exec", {"command": "printf '\\377\\000\\033[2J\\r\\n'; yes | head -n 30000"})
    assert len(ran.logged) < 2100
    assert all(isinstance(message, str) for _, message in ran.logged)


#: Mains that turn on what runs them; none is worth a result, and none may touch the next run.
SABOTAGE = {
    "signals to its parent": "import os\ndef main():\n    for n in range(1, 65): n in (17, 18) or os.kill(os.getppid(), n)\n    return 'done'",
    "signals to everybody": "import os\ndef main():\n    for n in (19, 9): os.kill(-1, n)\n    return 'done'",
    "builtins taken away": "import builtins, json, sys\ndef main():\n    builtins.len = None; json.dumps = None; sys.modules.clear()\n    return 'done'",
    "its own answer's descriptor": "import os\ndef main():\n    os.close(3); os.dup2(1, 3)\n    return 'done'",
    "its own exit": "import os, threading\ndef main():\n    threading.Timer(0.01, os._exit, (0,)).start()\n    while True: pass",
}


@pytest.mark.parametrize("name", SABOTAGE)
async def test_who_turns_on_what_runs_it_harms_only_itself(box: NamespaceBox, name: str) -> None:
    ran = await run_node(box, "code.python", {"code": SABOTAGE[name], "timeout_ms": 15_000})
    # The fixture's honest runs come after this.
    kind = ran.outcome.error.kind if isinstance(ran.outcome, Failed) else ErrorKind.USER
    assert kind is ErrorKind.USER, ran.outcome


async def test_the_host_keeps_its_name(box: NamespaceBox) -> None:
    await run_node(box, "shell.exec", {"command": "hostname flo-was-here; true"})
    assert os.uname().nodename != "flo-was-here"
