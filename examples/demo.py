"""One job of each lane through a whole Flo: what `scripts/demo` runs.

Starts `flo dev`, pushes a flow, and has it run by the clock, by a webhook, by an asynchronous call and by a streamed
call. Prints what became of each, stops everything, and ends with 0 only if all succeeded and no process is left.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx
from rich.console import Console

from flo.cli.tables import elapsed, print_table
from flo.client import FloClient
from flo.errors import FloError
from flo.home import Endpoint, Home
from flo.orphans import die_with_parent
from flo.wire import JSONValue, Run

APP = "demo"
#: Seconds that one step may take; a busy machine needs some.
PATIENCE = 90

GREET = """\
export default ({ who, body, scheduled_for }) => {
  const name = who ?? body?.who ?? (scheduled_for ? "clock" : "nobody");
  console.log(`greeting ${name}`);
  return { text: `hello ${name}` };
};
"""

GREETING: JSONValue = {
    "name": "greeting",
    "nodes": [
        {"id": "greet", "node_type": "code.javascript", "config": {"code": GREET}},
        {
            "id": "shout",
            "node_type": "code.javascript",
            "config": {"code": "export default ({ text }) => ({ loud: `${text.toUpperCase()}!` });"},
        },
        {"id": "say", "node_type": "debug.log", "config": {}},
    ],
    "connections": [
        {"from_node": "greet", "from_port": "text", "to_node": "shout", "to_port": "text"},
        {"from_node": "shout", "from_port": "loud", "to_node": "say", "to_port": "message"},
    ],
}

console = Console(highlight=False)
T = TypeVar("T")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Run one job of each lane through a whole Flo.")
    parser.add_argument("--home", type=Path, help="where it is all kept (default: FLO_HOME, else .flo)")
    given = parser.parse_args()
    home = Home(given.home.absolute()) if given.home else Home.of(os.environ)
    with flo_dev(home) as endpoint, FloClient(endpoint["api"], key=home.key(), app=APP) as client:
        runs = run_each_lane(client)
        show(runs)
        family = family_of(endpoint["pid"])
        listed = listed_runs(endpoint, home)
    left = family & parents_by_process().keys()
    unlisted = [run["run_id"] for run in runs.values() if run["run_id"] not in listed]
    console.print(f"`flo runs` lists {len(runs) - len(unlisted)} of these {len(runs)}")
    console.print(f"stopped: {len(left)} of {len(family)} processes left")
    succeeded = all(run["status"] == "succeeded" for run in runs.values())
    return 0 if succeeded and not unlisted and not left else 1


def run_each_lane(client: FloClient) -> dict[str, Run]:
    client.push("greeting", GREETING)
    client.put_event("each-second", kind="schedule", flow="greeting", config={"every": "1s"})
    client.put_event("on-order", kind="webhook", flow="greeting", config={"path": "orders"})
    client.put_event("on-call", kind="invoke", flow="greeting")
    try:
        return {
            "streamed invoke": streamed_invoke(client),
            "async invoke": async_invoke(client),
            "webhook": webhook(client),
            "cron (every 1 s)": cron(client),
        }
    finally:
        client.delete_event("each-second")


def streamed_invoke(client: FloClient) -> Run:
    """Call, and read each event while it happens."""
    console.print("a streamed invoke, live:")
    run_id = ""
    for event in client.stream("on-call", {"who": "stream"}):
        run_id = event["run_id"]
        about = event.get("node_id") or event.get("status") or ""
        console.print(
            f"  {event['seq']:>2} {event['type']:<15} {about} {event.get('message', '')}".rstrip(), style="dim"
        )
    return client.run(run_id)


def async_invoke(client: FloClient) -> Run:
    """Call, be told the run's id at once, and poll it to its end."""
    accepted = client.invoke_async("on-call", {"who": "poll"}, idempotency_key=f"demo-{time.time_ns()}")
    return ended(client, accepted["run_id"])


def webhook(client: FloClient) -> Run:
    """Send what another system would send."""
    answer = httpx.post(f"{client.url}/hooks/{APP}/orders", json={"who": "hook"}, timeout=PATIENCE)
    answer.raise_for_status()
    return ended(client, answer.json()["run_ids"][0])


def cron(client: FloClient) -> Run:
    """Wait for the next run that the clock starts."""
    before = {run["run_id"] for run in client.runs(app=APP, lane="recurring")}

    def started() -> str | None:
        now = (run["run_id"] for run in client.runs(app=APP, lane="recurring", limit=10))
        return next((run_id for run_id in now if run_id not in before), None)

    return ended(client, until(started, what="a run that the clock starts"))


def ended(client: FloClient, run_id: str) -> Run:
    def over() -> Run | None:
        run = client.run(run_id)
        return run if run["finished_at"] else None

    return until(over, what=f"the end of {run_id}")


def until(ask: Callable[[], T | None], *, what: str) -> T:
    """Ask again and again until there is an answer."""
    deadline = time.monotonic() + PATIENCE
    while (answer := ask()) is None:
        if time.monotonic() > deadline:
            raise FloError(f"{what} did not come within {PATIENCE} s")
        time.sleep(0.1)
    return answer


@contextmanager
def flo_dev(home: Home) -> Iterator[Endpoint]:
    """Run `flo dev` on free ports; what it prints is shown only if it does not start."""
    command = [sys.executable, "-P", "-m", "flo", "dev", "--home", str(home.path), "--port", "0", "--no-flower"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, preexec_fn=die_with_parent())  # noqa: PLW1509

        def endpoint() -> Endpoint | None:
            if process.poll() is not None:
                said.seek(0)
                raise FloError(f"`flo dev` ended with exit code {process.returncode}:\n{said.read().decode()}")
            found = home.endpoint()
            return found if found and found["pid"] == process.pid else None

        try:
            found = until(endpoint, what="`flo dev`")
            console.print(f"`flo dev` is up at {found['api']}; its home is {home.path}")
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)


def show(runs: dict[str, Run]) -> None:
    columns = ["Lane", "How", "Run", "Status", "Time", "Result"]
    rows = [
        [
            run["lane"],
            how,
            run["run_id"],
            run["status"],
            elapsed(run["created_at"], run["finished_at"]),
            run["error"]["message"] if run["error"] else json.dumps(run["result"]),
        ]
        for how, run in runs.items()
    ]
    print_table(columns, rows, what="runs")


def listed_runs(endpoint: Endpoint, home: Home) -> set[str]:
    """Ask the `flo` command which runs there are."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "flo",
        "runs",
        "--json",
        "--app",
        APP,
        "--limit",
        "1000",
        "--url",
        endpoint["api"],
    ]
    said = subprocess.run(command, env={**os.environ, "FLO_HOME": str(home.path)}, stdout=subprocess.PIPE, check=True)
    return {run["run_id"] for run in json.loads(said.stdout)}


def family_of(pid: int) -> set[int]:
    """Find a process and all that it and its children started."""
    parents = parents_by_process()
    family = newest = {pid}
    while newest := {child for child, parent in parents.items() if parent in newest}:
        family = family | newest
    return family


def parents_by_process() -> dict[int, int]:
    """Tell each living process's parent (Linux: proc_pid_stat(5))."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, parent, *_ = file.read_text().rpartition(")")[2].split()
            if state != "Z":
                parents[int(file.parent.name)] = int(parent)
    return parents


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FloError as error:
        console.print(f"[red]{error}")
        sys.exit(1)
