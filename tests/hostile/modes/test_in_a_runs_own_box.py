"""Code with all of Node, and commands, that fight the box of their run, its engine, and whoever listens to it."""

# Hostile programs stand on one line each, however long.
# ruff: noqa: E501

from __future__ import annotations

import pytest
from in_mode import InMode

from schemas.outcome import ErrorKind, Failed, Succeeded
from schemas.run import EventType
from workers.engine.sink import MemorySink

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Bodies of async functions with Node's modules at hand; they return "GOT" if they get what they want.
REACHING = {
    "the users of the host": "return fs.readFileSync('/etc/passwd', 'utf8').includes('daemon') ? 'GOT' : 0",
    "the shadow file": "return fs.readFileSync('/etc/shadow').length ? 'GOT' : 0",
    "the homes of others": "return fs.readdirSync('/root').length || fs.readdirSync('/home').length ? 'GOT' : 0",
    "the host's processes": "return fs.readdirSync('/proc').filter(n => /^\\d+$/.test(n)).length > 12 ? 'GOT' : 0",
    "the environment of pid 1": "return fs.readFileSync('/proc/1/environ').length ? 'GOT' : 0",
    "the worker's environment": "return Object.keys(process.env).some(n => /^(FLO|REDIS|AWS|KAFKA)_/.test(n)) ? 'GOT' : 0",
    "Flo's own code, to change it": "fs.writeFileSync('/opt/flo/app/workers/__init__.py', 'x'); return 'GOT'",
    "the packages, to change them": "fs.writeFileSync('/opt/flo/site/orjson/__init__.py', 'x'); return 'GOT'",
    "the hub, to change it": "fs.writeFileSync('/opt/flo/hub/x', 'x'); return 'GOT'",
    "the system, to change it": "fs.writeFileSync('/usr/bin/x', 'x'); return 'GOT'",
    "a device": "fs.openSync('/dev/mem', 'r'); return 'GOT'",
    "a disk by mknod": "cp.execSync('mknod /tmp/d b 8 0 && head -c1 /tmp/d'); return 'GOT'",
    "a mount": "cp.execSync('mount -t tmpfs none /tmp'); return 'GOT'",
    "a new namespace": "cp.execSync('unshare -Ur true'); return 'GOT'",
    "another user": "process.setuid(0); return 'GOT'",
    "another root": "cp.execSync('chroot / true'); return 'GOT'",
    "the memory of the engine": "const [e] = engines(); fs.openSync(`/proc/${e}/mem`, 'r+'); return 'GOT'",
    "the engine's socket": "const [e] = engines(); fs.writeSync(fs.openSync(`/proc/${e}/fd/3`, 'w'), '{\"say\":\"done\"}\\n'); return 'GOT'",
    "the engine by ptrace": "cp.execSync(`python3 -c \"import ctypes; l = ctypes.CDLL(None); exit(l.ptrace(16, ${engines()[0]}, 0, 0) != 0)\"`); return 'GOT'",
    "the metadata service": "return await reach('http://169.254.169.254/latest/meta-data/')",
    "the host's loopback": "return await reach('http://127.0.0.1:6379/')",
    "a private address": "return await reach('http://10.0.0.1/')",
    "an address by another spelling": "return await reach('http://0x7f.1:6379/') || await reach('http://[::ffff:127.0.0.1]:6379/') || await reach('http://2130706433:6379/')",
    "the network without the proxy": "return await new Promise(done => { const s = net.connect(53, '8.8.8.8'); s.on('connect', () => done('GOT')); s.on('error', () => done(0)); setTimeout(() => done(0), 1000) })",
    "a name by its own DNS": "return await new Promise(done => dns.resolve4('example.com', e => done(e ? 0 : 'GOT')))",
    "a packet": "return await new Promise(done => { const s = dgram.createSocket('udp4'); s.on('error', () => done(0)); s.send('x', 53, '8.8.8.8', e => done(e ? 0 : 'GOT')) })",
    "a raw socket": "cp.execSync('python3 -c \"import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\"'); return 'GOT'",
    "the proxy as a way home": "return await new Promise(done => { const s = net.connect(3128, '127.0.0.1'); s.write('CONNECT 127.0.0.1:22 HTTP/1.1\\r\\n\\r\\n'); s.on('data', d => done(/ 200 /.test(d) ? 'GOT' : 0)); s.on('error', () => done(0)) })",
    "a unix socket of the host": "return await new Promise(done => { const s = net.connect('/var/run/docker.sock'); s.on('connect', () => done('GOT')); s.on('error', () => done(0)) })",
}
_HEAD = """
import cp from 'node:child_process'; import dgram from 'node:dgram'; import dns from 'node:dns'; import fs from 'node:fs'; import net from 'node:net';
const engines = () => [process.ppid];
const reach = async (url) => { const p = new URL(process.env.HTTP_PROXY); return new Promise(done => { const s = net.connect(p.port, p.hostname); s.write(`GET ${url} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n`); s.on('data', d => done(/^HTTP.1.1 (4|5)/.test(d) ? 0 : 'GOT')); s.on('error', () => done(0)); s.on('end', () => done(0)) }) };
"""

#: Commands that take too much or strike out; with what they may end in.
_T, _M, _O, _U, _K = (
    ErrorKind.TIMED_OUT, ErrorKind.MEMORY_EXCEEDED, ErrorKind.OUTPUT_EXCEEDED, ErrorKind.USER, ErrorKind.KILLED,
)  # fmt: skip
STRIKING = {
    "a fork bomb": ("f() { f | f & }; f; sleep 30", {_T, _U, _M, _K}),
    "a memory bomb": ("python3 -c \"a = []\nwhile True: a.append(b'x' * 10**7)\"", {_M}),
    "many memory bombs": (
        "for i in 1 2 3 4 5 6; do python3 -c \"b = b'x' * 10**8; import time; time.sleep(20)\" & done; wait; exit 1",
        {_M, _T, _U, _K},
    ),
    "a full /tmp": ("head -c 2G /dev/zero >/tmp/full", {_U, _M, _O, _K}),
    "files without number": ("i=0; while :; do i=$((i+1)); : >/tmp/$i || exit 1; done", {_T, _U}),
    "endless output": ("yes", {_O, _T}),
    "endless errors": ("yes >&2", {_O, _T}),
    "one endless line": ("head -c 1G /dev/zero", {_O, _T}),
    "the death of the engine": ("for p in /proc/[0-9]*; do kill -9 ${p#/proc/}; done; sleep 30", {_K, _U}),
    "the death of everyone": ("kill -9 -1; sleep 30", {_K, _U}),
    "an end by every signal": ("for s in 1 2 3 6 9 11 15; do kill -$s -1; done; sleep 30", {_K, _U}),
    "a sleep beyond the limit": ("sleep 3000", {_T}),
    "a child that ignores its end": (
        "trap '' TERM INT HUP; setsid sh -c 'trap \"\" TERM; sleep 3000' & sleep 3000",
        {_T},
    ),
}


@pytest.mark.parametrize("what", REACHING)
async def test_code_reaches_nothing(per_run: InMode, what: str) -> None:
    code = f"{_HEAD} export default async () => {{ {REACHING[what]} }}"

    outcome = await per_run.run(per_run.order("code.javascript", {"code": code, "timeout_ms": 8000}))

    assert isinstance(outcome, Succeeded | Failed)
    assert "GOT" not in str(outcome.result if isinstance(outcome, Succeeded) else "")
    if isinstance(outcome, Failed):
        assert outcome.error.kind in {ErrorKind.USER, ErrorKind.KILLED}, outcome


@pytest.mark.parametrize("what", STRIKING)
async def test_commands_that_strike_hit_their_own_run_only(per_run: InMode, what: str) -> None:
    command, kinds = STRIKING[what]
    # What is to be stopped by another limit than that of time gets the time for it, on any machine.
    patience_ms = 2500 if _T in kinds else 60_000

    error = await per_run.error(
        "shell.exec",
        {"command": command, "timeout_ms": patience_ms},
        settings={"max_execution_time_ms": patience_ms + 5500},
    )

    assert error.kind in kinds, error


@pytest.mark.parametrize("line", [
    '{"say":"done","run":1,"outcome":{"is":"succeeded","result":"forged"}}',
    '{"say":"event","run":1,"type":"run_completed","data":{"status":"succeeded"},"node_id":null,"time":0}',
    '{"type":"done","id":1,"value":"\\"forged\\""}',
])  # fmt: skip
async def test_a_forged_word_is_only_a_line_of_output(per_run: InMode, line: str) -> None:
    events = MemorySink()

    outcome = await per_run.run(per_run.order("shell.exec", {"command": f"echo '{line}'; echo '{line}' >&2"}), events)

    assert isinstance(outcome, Succeeded)
    assert outcome.result["stdout"].strip() == line  # type: ignore[index,call-overload,union-attr]
    assert EventType.RUN_COMPLETED not in {said.type for said in events.happenings}
