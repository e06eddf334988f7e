"""The live feed of a real server: over its socket, from another process's events, after a restart."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from dispatch.store.runs import put_runs
from dispatch.store.session import Store
from tests.making import NO_OP, new_run

#: Longest wait for a process to do what it should, in seconds.
PATIENCE = 60


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    url: str
    home: Path
    said: Path

    @property
    def key(self) -> str:
        return (self.home / "api_key").read_text().strip()

    def feed(self, query: str = "app=shop", **rest: Any) -> ClientConnection:
        rest.setdefault("additional_headers", {"Authorization": f"Bearer {self.key}"})
        feed: ClientConnection = connect(f"{self.url.replace('http', 'ws', 1)}/api/v1/events?{query}", **rest)
        return feed

    def send(self, method: str, path: str, **rest: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = httpx.request(method, f"{self.url}/api/v1{path}", headers=headers, timeout=PATIENCE, **rest)
        return answer.raise_for_status().json()

    def start_run(self) -> str:
        return str(self.send("POST", "/apps/shop/events/go/invoke/async", json={})["run_id"])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0


Serve = Callable[[], Server]


@pytest.fixture
def serve(home: Path, redis_url: str) -> Iterator[Serve]:
    servers: list[Server] = []

    def begin() -> Server:
        env = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")}
        own = {"FLO_HOME": str(home), "REDIS_URL": redis_url, "PYTHONPATH": str(Path(__file__).parents[3])}
        said = home.parent / f"said.{len(servers)}"
        with said.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "scheduler", "api", "--port", "0"],
                env={**env, **own}, stdout=subprocess.PIPE, stderr=out, text=True,
            )  # fmt: skip
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, said.read_text()
        servers.append(Server(process, found[0], home, said))
        return servers[-1]

    yield begin
    for server in servers:
        server.process.kill()
        server.process.communicate()


@pytest.fixture
def shop(serve: Serve) -> Server:
    server = serve()
    server.send("PUT", "/apps/shop/flows/greet", json=NO_OP)
    server.send("PUT", "/apps/shop/events/go", json={"kind": "invoke", "flow": "greet"})
    return server


def next_event(feed: ClientConnection) -> Any:
    return json.loads(feed.recv(PATIENCE))


def test_a_feed_hears_of_runs_that_another_server_took(shop: Server, serve: Serve) -> None:
    other = serve()
    with shop.feed() as feed:
        run = other.start_run()

        event = next_event(feed)

    assert (event["run_id"], event["type"]) == (run, "run_queued")


def test_a_feed_takes_its_key_from_the_address_and_no_log_shows_it(shop: Server) -> None:
    with shop.feed(f"app=shop&key={shop.key}", additional_headers={}) as feed:
        run = shop.start_run()
        event = next_event(feed)
    shop.stop()

    assert event["run_id"] == run
    assert shop.key not in shop.said.read_text()


def test_a_feed_takes_its_key_as_a_subprotocol(shop: Server) -> None:
    words: Any = ["flo.events.v1", f"flo.key.{shop.key}"]
    with shop.feed(additional_headers={}, subprotocols=words) as feed:
        run = shop.start_run()

        assert next_event(feed)["run_id"] == run
        assert feed.subprotocol == "flo.events.v1"


def test_a_wrong_key_is_told_why_before_the_close(shop: Server) -> None:
    with shop.feed("app=shop&key=wrong", additional_headers={}) as feed, pytest.raises(ConnectionClosed) as closed:
        feed.recv(PATIENCE)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert "not known" in closed.value.rcvd.reason


def test_a_feed_goes_on_after_a_restart_where_it_was(shop: Server, serve: Serve) -> None:
    with shop.feed() as feed:
        first = shop.start_run()
        last = next_event(feed)
        shop.stop()
        with pytest.raises(ConnectionClosed) as closed:
            feed.recv(PATIENCE)
    missed = asyncio.run(_accept_in_sql(shop.home))
    again = serve()
    with again.feed(f"app=shop&after={quote(last['time'])}") as feed:
        runs = [next_event(feed)["run_id"] for _ in range(2)]
        live = again.start_run()
        newest = next_event(feed)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert runs == [first, missed]
    assert newest["run_id"] == live


async def _accept_in_sql(home: Path) -> str:
    """Accept a run while no server is up, as another replica would."""
    run = new_run()
    store = await Store.open(f"sqlite:///{home / 'flo.db'}")
    async with store.write() as connection:
        await connection.run_sync(put_runs, [run])
    await store.aclose()
    return run.id
