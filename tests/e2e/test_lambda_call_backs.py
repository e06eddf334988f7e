"""A function that calls back: it is heard of while it runs, and hears that its run is to be stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flo.client import FloClient
from tests.e2e.flo_program import until
from tests.e2e.lambda_stack import running
from tests.e2e.witness import flow, open_witness


def ended(client: FloClient, run_id: str) -> Any:
    run = client.run(run_id)
    return None if run["status"] in {"queued", "running"} else run


@pytest.mark.timeout(200)
@pytest.mark.parametrize("invocation", ["Event", "RequestResponse"])
def test_a_cancelled_run_is_stopped_in_its_function(tmp_path: Path, invocation: str) -> None:
    config = {"invocation": invocation}
    with (
        open_witness() as witness,
        running(tmp_path / "home", calls_back=True) as dev,
        dev.client("shop") as client,
    ):
        for name, delay_ms in (("long", 9_000), ("short", 1)):
            client.push(name, flow(witness, delay_ms=delay_ms))
            client.put_event(name, kind="invoke", flow=name)
        run_id = client.invoke_async("long", {"n": 1}, backend_config=config)["run_id"]
        until(lambda: witness.calls.get(run_id))
        until(lambda: "node_completed" in {event["type"] for event in client.events(run_id)} or None)
        assert client.run(run_id)["status"] == "running"

        client.cancel(run_id)

        assert until(lambda: ended(client, run_id))["status"] == "cancelled"
        after = client.invoke_async("short", {"n": 2}, backend_config=config)["run_id"]
        assert until(lambda: ended(client, after))["result"] == {"output": 2}
        assert [path for _, path in witness.calls[run_id]] == ["/began"]
