"""Nodes in pods of their own, of runs that execute elsewhere: what they give, what they cost, and who dies when."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flo.calls import put_limits
from flo.client import FloClient
from tests.e2e.flo_program import FloDev, flo_dev, until
from tests.e2e.outside import Outside
from tests.k8s_double.running import Double, running_double
from tests.servers import free_port

pytestmark = pytest.mark.timeout(300)

SMALL = {"memory_mb": 512, "cpus": 0.5}


class Held(Outside):
    """Answers `/held` once the test says so; `/flaky` fails the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self.let_go = threading.Event(), threading.Event()

    def answer(self, name: str, nth: int, connection: socket.socket) -> int:
        if name == "held":
            self.arrived.set()
            self.let_go.wait(120)
        return 503 if name == "flaky" and nth == 1 else 200

    def let_all_go(self) -> None:
        self.let_go.set()


@pytest.fixture
def outside() -> Iterator[Held]:
    with Held().listening() as outside:
        yield outside


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with running_double(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, double: Double) -> Iterator[FloDev]:
    port = str(free_port())
    variables = {
        **double.variables, "FLO_LEASE_SECONDS": "3", "FLO_URL": f"http://127.0.0.1:{port}",
        "FLO_ALLOW_PRIVATE_NETWORK": "true", "K8S_KEEP_SECONDS": "1",
    }  # fmt: skip
    with flo_dev(tmp_path_factory.mktemp("dev") / "home", "--no-flower", "--port", port, **variables) as running:
        yield running


@pytest.fixture
def client(dev: FloDev, double: Double) -> Iterator[FloClient]:
    """A client of the server; afterwards nothing of the test is left in the cluster."""
    with dev.client("shop") as opened:
        yield opened
    until(lambda: None if double.state()["stored"] or double.state()["pids"] else True)


def code(node_id: str, source: str, **more: Any) -> dict[str, Any]:
    return {"id": node_id, "node_type": "code.javascript", "config": {"code": source}, **more}


def request(node_id: str, url: str, **more: Any) -> dict[str, Any]:
    return {"id": node_id, "node_type": "http.request", "config": {"url": url, "fail_on_status": True}, **more}


def wire(start: str, end: str) -> dict[str, str]:
    (from_node, from_port), (to_node, to_port) = start.split("."), end.split(".")
    return {"from_node": from_node, "from_port": from_port, "to_node": to_node, "to_port": to_port}


def pushed(client: FloClient, name: str, *nodes: dict[str, Any], wires: tuple[Any, ...] = ()) -> str:
    client.push(name, {"name": name, "nodes": list(nodes), "connections": list(wires)})
    client.put_event(name, kind="invoke", flow=name)
    return name


def over(client: FloClient, run_id: str) -> Any:
    return until(lambda: run if (run := client.run(run_id))["status"] not in ("queued", "running", "waiting") else None)


def waiting(client: FloClient, run_id: str) -> Any:
    return until(lambda: run if (run := client.run(run_id))["status"] == "waiting" else None)


def said(client: FloClient, run_id: str, type_: str) -> list[Any]:
    return [event for event in client.events(run_id) if event["type"] == type_]


def jobs_asked(double: Double) -> int:
    return int(double.state()["asked"].get("post jobs", 0))


def crunching(place: str) -> tuple[dict[str, Any], ...]:
    log = "console.log(`n is ${n}`);"
    return (
        code("before", "export default ({payload}) => ({n: payload.n + 1})"),
        code("crunch", f"export default ({{n}}) => {{ {log} return {{twice: n * 2}} }}", execution_mode=place),
        code("after", "export default ({twice}) => ({answer: twice + 1})"),
    )


WIRES = (wire("before.n", "crunch.n"), wire("crunch.twice", "after.twice"))


def test_a_node_gives_in_a_pod_what_it_gives_in_a_sandbox_and_is_heard_in_its_own_run(client: FloClient) -> None:
    pushed(client, "boxed", *crunching("sandbox"), wires=WIRES)
    pushed(client, "podded", *crunching("pod"), wires=WIRES)

    boxed = over(client, client.invoke_async("boxed", {"n": 20})["run_id"])
    podded = over(client, client.invoke_async("podded", {"n": 20})["run_id"])
    (wait,) = said(client, podded["run_id"], "run_waiting")[0]["waits"]
    child = client.run(wait["run_id"])

    assert podded["result"] == boxed["result"] == {"answer": 43, "output": {"answer": 43}}
    assert [node["outputs"] for node in podded["nodes"]] == [node["outputs"] for node in boxed["nodes"]]
    (log,) = said(client, boxed["run_id"], "log")
    (heard,) = said(client, child["run_id"], "log")
    assert (heard["node_id"], heard["message"]) == (log["node_id"], log["message"]) == ("crunch", "n is 21")
    assert (child["parent_run"], child["node"], child["status"]) == (podded["run_id"], "crunch", "succeeded")
    assert [node["id"] for node in child["nodes"]] == ["crunch"]


def test_its_job_has_its_resources_and_none_of_its_payload(client: FloClient, double: Double, outside: Held) -> None:
    pushed(client, "sized", request("held", outside.url("held"), execution_mode="pod", resources=SMALL))

    run_id = client.invoke_async("sized", {"card": "4111 1111"})["run_id"]
    assert outside.arrived.wait(90)
    (job,) = double.stored("Job")
    parent = client.run(run_id)
    outside.let_go.set()

    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {
        "limits": {"memory": "512Mi", "cpu": "500m"}, "requests": {"memory": "512Mi", "cpu": "500m"}
    }  # fmt: skip
    assert "4111" not in str(double.state()["stored"])
    assert (parent["status"], parent["nodes"][0]["status"]) == ("waiting", "waiting")
    assert over(client, run_id)["status"] == "succeeded"


def test_its_error_is_the_same_as_in_a_sandbox(client: FloClient) -> None:
    bad = "export default () => { throw Error('mine') }"
    pushed(client, "bad-boxed", code("bad", bad, execution_mode="sandbox"))
    pushed(client, "bad-podded", code("bad", bad, execution_mode="pod"))

    boxed = over(client, client.invoke_async("bad-boxed", {})["run_id"])["error"]
    podded = over(client, client.invoke_async("bad-podded", {})["run_id"])["error"]

    assert (podded["kind"], podded["node_id"], podded["message"]) == (boxed["kind"], "bad", boxed["message"])


def test_too_much_memory_is_worded_for_the_node(client: FloClient) -> None:
    # Its own limit is higher than its pod's, so that the pod's is what it meets.
    eats = {"command": "python3 -c \"x = b'x' * 500_000_000; import time; time.sleep(60)\"", "memory_mb": 2000}
    node = {"id": "eats", "node_type": "shell.exec", "config": eats, "execution_mode": "pod"}
    pushed(client, "eats", {**node, "resources": {"memory_mb": 300}})

    run = over(client, client.invoke_async("eats", {})["run_id"])

    assert (run["status"], run["error"]["node_id"]) == ("memory_exceeded", "eats")
    assert run["error"]["message"] == (
        "the node's own sandbox used more memory than its limit of 300 MB, engine and code together; use less, or "
        "raise resources.memory_mb"
    )


def test_too_much_time_is_worded_for_the_node(client: FloClient) -> None:
    forever = code("slow", "export default () => new Promise(() => {})", execution_mode="pod")
    pushed(client, "slow", {**forever, "resources": {"timeout_ms": 1500}})

    error = over(client, client.invoke_async("slow", {})["run_id"])["error"]

    assert error["kind"] == "timed_out"
    assert error["details"]["raise_with"] == "resources.timeout_ms"


def test_each_try_has_a_job_of_its_own(client: FloClient, double: Double, outside: Held) -> None:
    policy = {"max_attempts": 2, "delay_ms": 0}
    pushed(client, "flaky", request("flaky", outside.url("flaky"), execution_mode="pod", retry_policy=policy))
    before = jobs_asked(double)

    run = over(client, client.invoke_async("flaky", {})["run_id"])
    parks = said(client, run["run_id"], "run_waiting")
    tries = [client.run(park["waits"][0]["run_id"]) for park in parks]

    assert (run["status"], outside.counted["flaky"], jobs_asked(double) - before) == ("succeeded", 2, 2)
    assert [(one["status"], one["payload"]["attempt"]) for one in tries] == [("failed", 1), ("succeeded", 2)]


def test_who_cancels_the_run_cancels_its_job(client: FloClient, double: Double, outside: Held) -> None:
    pushed(client, "stopped", request("held", outside.url("held"), execution_mode="pod"))
    run_id = client.invoke_async("stopped", {})["run_id"]
    assert outside.arrived.wait(90)
    child = waiting(client, run_id)["waits"][0]["run_id"]

    client.cancel(run_id)

    assert over(client, run_id)["status"] == "cancelled"
    assert over(client, child)["status"] == "cancelled"
    until(lambda: None if double.state()["pids"] else True)


def test_a_dead_worker_is_not_missed_by_a_node_in_its_pod(
    dev: FloDev, client: FloClient, double: Double, outside: Held
) -> None:
    nodes = (
        request("first", outside.url("first")),
        request("held", outside.url("held"), execution_mode="pod"),
        request("last", outside.url("last")),
    )
    wires = (wire("first.status", "held.json"), wire("held.status", "last.json"))
    pushed(client, "outlives", *nodes, wires=wires)
    before = jobs_asked(double)
    run_id = client.invoke_async("outlives", {})["run_id"]
    assert outside.arrived.wait(90)
    waiting(client, run_id)

    os.kill(dev.child("-m workers"), signal.SIGKILL)
    outside.let_go.set()
    run = over(client, run_id)

    assert (run["status"], run["error"]) == ("succeeded", None)
    assert outside.counted == {"first": 1, "held": 1, "last": 1}
    assert jobs_asked(double) - before == 1


def test_a_run_that_is_a_job_itself_ends_it_before_the_job_of_its_node_begins(
    client: FloClient, double: Double, outside: Held
) -> None:
    pod = request("held", outside.url("held"), execution_mode="pod", resources=SMALL)
    whole = {"resources": {"limits": {"cpu": "1", "memory": "2Gi"}}}
    client.push("whole", {"name": "whole", "nodes": [pod, code("x", "export default () => 1")], "settings": whole})
    client.put_event("whole", kind="invoke", flow="whole")
    client.send(put_limits("shop", {"modes": ["inline", "kubernetes_job"]}))

    run_id = client.invoke_async("whole", {}, mode="kubernetes_job")["run_id"]
    assert outside.arrived.wait(90)
    waiting(client, run_id)
    lives = until(lambda: found if (found := double.state()["lives"].get(run_id)) else None)
    outside.let_go.set()

    assert len(lives) == 1
    run = over(client, run_id)
    assert (run["status"], run["attempt"], outside.counted["held"]) == ("succeeded", 2, 1)


def test_inside_another_node_a_sandbox_stands_in_for_the_pod(client: FloClient, double: Double) -> None:
    inner = {**code("x", "export default ({item}) => item * 2", execution_mode="pod")}
    del inner["id"]
    each = {"id": "each", "node_type": "flow.map", "config": {"node": inner, "items": [1, 2]}}
    pushed(client, "mapped", each)
    before = jobs_asked(double)

    run = over(client, client.invoke_async("mapped", {})["run_id"])

    assert run["result"]["results"] == [{"output": 2}, {"output": 4}]
    assert jobs_asked(double) == before
