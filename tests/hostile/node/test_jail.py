"""Code that has broken out of its isolate and owns its Node host: the box around the host is all that is left."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.hostile.node.conftest import Attack, attacking, broken_pool
from tests.processes import children_of
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.inside.root import WRITTEN
from workers.sandboxes.node.boxed import BoxJail
from workers.sandboxes.node.pool import NodePool


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Gives what each of several attempts was answered: the error's code, or "done".
TRY = """
const tried = async (attempts) => {
  const answers = [];
  for (const attempt of attempts) {
    try { await attempt(); answers.push("done") } catch (problem) { answers.push(problem.code ?? problem.name) }
  }
  return answers;
};
"""


async def test_it_reads_a_password_file_of_the_box_s_own(attack: Attack) -> None:
    assert await attack("return require('fs').readFileSync('/etc/passwd', 'utf8')") == WRITTEN["passwd"]


async def test_it_finds_no_file_of_the_host(attack: Attack) -> None:
    places = [str(Path(__file__)), str(Path.cwd()), str(Path.home()), "/etc/shadow", "/etc/machine-id", "/sys/kernel"]
    source = TRY + "return tried(inputs.places.map((place) => () => require('fs').statSync(place)))"
    assert set(await attack(source, places=places)) == {"ENOENT"}


async def test_node_s_own_bindings_reach_no_further(attack: Attack) -> None:
    source = """
    const { spawn } = process.binding('spawn_sync');
    const stdio = Array(3).fill({ type: 'ignore' });
    const cat = (file) => spawn({ file: '/bin/cat', args: ['cat', file], stdio, envPairs: [] }).status;
    return [cat('/etc/hostname'), cat('/etc/shadow')];
    """
    assert await attack(source) == [0, 1]


async def test_its_environment_is_the_box_s(attack: Attack) -> None:
    assert set(await attack("return Object.keys(process.env)")) <= {"PATH", "HOME", "LANG", "LD_LIBRARY_PATH"}


async def test_it_sees_no_process_but_those_of_its_box(attack: Attack) -> None:
    source = "return require('fs').readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name)).map(Number)"
    assert max(await attack(source)) < 10


async def test_it_cannot_look_into_its_first_process(attack: Attack) -> None:
    source = (
        TRY
        + """
    const fs = require('fs');
    return tried(['environ', 'mem', 'maps', 'root', 'fd'].map((name) => () => {
      const place = `/proc/1/${name}`;
      return name === 'root' || name === 'fd' ? fs.readdirSync(place) : fs.readFileSync(place);
    }))
    """
    )
    assert set(await attack(source)) <= {"EACCES", "EPERM", "ENOENT"}


async def test_it_signals_neither_its_parents_nor_the_worker(pool: NodePool, attack: Attack) -> None:
    source = TRY + "return tried(inputs.pids.map((pid) => () => process.kill(pid, 'SIGKILL')))"
    before = pool.pids
    assert set(await attack(source, pids=[os.getpid(), os.getppid(), before[0]])) == {"ESRCH"}
    # Its first process may be sent a signal, which the kernel then drops (pid_namespaces(7)).
    assert set(await attack(source, pids=[1])) <= {"EPERM", "done"}
    assert await attack("return 1") == 1
    assert pool.pids == before


async def test_it_becomes_nobody_else(attack: Attack) -> None:
    source = TRY + "return tried([() => process.setuid(0), () => process.setgid(0), () => process.setgroups([0])])"
    assert set(await attack(source)) <= {"EPERM", "EINVAL"}


async def test_it_changes_neither_its_program_nor_node_nor_the_system(attack: Attack) -> None:
    source = (
        TRY
        + """
    const fs = require('fs');
    const places = [`${process.argv[1]}.new`, `${process.execPath}.new`, '/usr/bin/new', '/etc/new', '/new'];
    return tried(places.map((place) => () => fs.writeFileSync(place, 'x')))
    """
    )
    assert set(await attack(source)) <= {"EROFS", "EACCES"}


async def test_no_listener_of_the_host_can_be_reached(attack: Attack) -> None:
    source = (
        TRY
        + """
    const net = require('net');
    const reach = (to) => () => new Promise((ok, fail) => net.connect(to).once('connect', ok).once('error', fail));
    return tried([reach({ port: inputs.port, host: '127.0.0.1' }), reach({ path: `\\0${inputs.name}` }),
      reach({ port: 80, host: '169.254.169.254' }), reach({ port: 53, host: '1.1.1.1' }),
      () => require('dns').promises.lookup('example.com')])
    """
    )
    name = f"flo-hostile-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as hidden:
        hidden.bind(f"\0{name}")
        hidden.listen()
        answers = await attack(source, port=server.getsockname()[1], name=name)
    assert set(answers) <= {"ECONNREFUSED", "ENETUNREACH", "EAI_AGAIN", "ENOTFOUND", "ENOENT"}


async def test_programs_that_it_starts_get_no_namespace_and_no_mount(attack: Attack) -> None:
    source = """
    const run = (...argv) => require('child_process').spawnSync(argv[0], argv.slice(1)).status;
    return [run('unshare', '-r', 'true'), run('mount', '-t', 'tmpfs', 'none', '/tmp'), run('chroot', '/', 'true')];
    """
    assert 0 not in await attack(source)


async def test_a_fork_bomb_stays_in_its_box(pool: NodePool, attack: Attack) -> None:
    source = """
    const { spawn } = require('child_process');
    let refused = 0;
    for (let i = 0; i < 400 && !refused; i++) {
      await new Promise((go) => spawn('sleep', ['1000']).once('spawn', go).once('error', () => go(refused++)));
    }
    return refused;
    """
    assert await attack(source) == 1


async def test_what_it_started_ends_with_it(box: NamespaceBox) -> None:
    async with broken_pool(BoxJail(box, name="test", memory_mb=512)) as pool:
        await attacking(pool)("require('child_process').spawn('sleep', ['1000'], { detached: true })")
        pid = pool.pids[0]
        sleepers = children_of(pid)
        assert len(sleepers) == 1
    assert not any(map(alive, [pid, *sleepers]))


async def test_memory_is_bounded_by_the_kernel_though_the_worker_looks_away(box: NamespaceBox) -> None:
    if "memory" not in box.cgroups.held:
        pytest.skip("no memory cgroup can be made here, so only the pool's own watch bounds a host")
    async with broken_pool(BoxJail(box, name="test", memory_mb=128)) as pool:
        # The pool allows a run of 1 GB over two: it is the box that ends this.
        greedy = attacking(pool, memory_mb=1024)
        source = "const kept = []; for (let i = 0; i < 512; i++) kept.push(Buffer.alloc(1 << 20, 1)); return 'all'"
        assert "used more memory than its limit" in await greedy(source)


async def test_a_host_that_floods_its_error_output_is_ended(box: NamespaceBox) -> None:
    async with broken_pool(BoxJail(box, name="test", memory_mb=512)) as pool:
        source = "for (;;) require('fs').writeSync(2, 'x'.repeat(1000))"
        assert str(await attacking(pool)(source)).startswith("failed: ")
