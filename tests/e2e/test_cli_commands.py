"""The commands that talk to a server, against a real `flo dev`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flo import calls
from tests.e2e.flo_program import FloDev, flo, flo_dev_with_hello


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FloDev]:
    with flo_dev_with_hello(tmp_path_factory.mktemp("commands")) as running:
        yield running


def failing_flow(folder: Path) -> str:
    file = folder / "failing.json"
    config = {"code": "export default () => { throw new Error('no luck') }"}
    nodes = [{"id": "a", "node_type": "code.javascript", "config": config}]
    file.write_text(json.dumps({"name": "failing", "nodes": nodes}))
    return str(file)


def test_the_same_flow_pushed_again_is_the_same_version(dev: FloDev, tmp_path: Path) -> None:
    file = str(tmp_path / "again.json")
    flo("init", file, home=dev.home)

    first = json.loads(flo("push", file, "--json", home=dev.home).out)
    second = json.loads(flo("push", file, "--json", home=dev.home).out)

    assert (first["version"], first["created"]) == (1, True)
    assert (second["version"], second["created"]) == (1, False)


def test_invoke_waits_for_the_result(dev: FloDev) -> None:
    ended = flo("invoke", "--flow", "hello", "--input", '{"name": "Ada"}', home=dev.home)

    assert ended.code == 0, ended.error
    assert json.loads(ended.out) == {"message": "hello Ada"}


def test_invoke_of_a_flow_leaves_an_event_of_its_name_that_starts_another_flow_alone(dev: FloDev) -> None:
    dev.client().put_event("taken", kind="invoke", flow="hello")

    ended = flo("invoke", "--flow", "taken", home=dev.home)

    assert ended.code == 2
    assert 'the event "taken" starts another flow, "hello"' in ended.error


def test_invoke_follow_shows_each_node_as_it_happens(dev: FloDev) -> None:
    ended = flo("invoke", "--flow", "hello", "--follow", "--input", '{"name": "Ada"}', home=dev.home)

    assert ended.code == 0, ended.error
    assert "⚡ Starting node: greet (code.javascript)" in ended.out
    assert "greet: greeting Ada" in ended.out
    assert "Completed: 2/2 nodes" in ended.out


def test_a_queued_run_can_be_followed_by_its_id(dev: FloDev) -> None:
    run_id = flo("invoke", "--flow", "hello", "--async", home=dev.home).out.strip()

    followed = flo("logs", "--follow", run_id, home=dev.home)
    shown = json.loads(flo("runs", "show", run_id, "--json", home=dev.home).out)

    assert followed.code == 0, followed.error
    assert "Flow completed successfully" in followed.out
    assert (shown["run_id"], shown["status"]) == (run_id, "succeeded")


def test_logs_of_a_finished_run_end_with_its_end(dev: FloDev) -> None:
    run_id = json.loads(flo("invoke", "--flow", "hello", "--json", home=dev.home).out)["run_id"]

    lines = flo("logs", run_id, "--json", home=dev.home).out.splitlines()

    assert json.loads(lines[-1])["type"] == "run_completed"
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))


def test_a_failed_run_ends_the_command_with_1_and_its_reason(dev: FloDev, tmp_path: Path) -> None:
    flo("push", failing_flow(tmp_path), home=dev.home)

    ended = flo("invoke", "--flow", "failing", home=dev.home)
    listed = json.loads(flo("runs", "--status", "failed", "--json", home=dev.home).out)

    assert ended.code == 1
    assert "no luck" in ended.error
    assert [run["flow"] for run in listed] == ["failing"]


def test_runs_are_listed_with_ids_that_can_be_copied(dev: FloDev) -> None:
    run_id = flo("invoke", "--flow", "hello", "--async", home=dev.home).out.strip()

    ended = flo("runs", "--limit", "1000", home=dev.home)

    assert f" {run_id} " in ended.out


def test_schedules_show_their_next_time(dev: FloDev) -> None:
    client = dev.client(app="clockwork")
    client.push("hello", client.send(calls.flow("default", "hello"))["document"])
    client.put_event("yearly", kind="schedule", flow="hello", config={"cron": "0 0 1 1 *"})

    (listed,) = json.loads(flo("schedules", "--app", "clockwork", "--json", home=dev.home).out)

    assert (listed["event"], listed["config"]["cron"]) == ("yearly", "0 0 1 1 *")
    assert listed["next_at"].endswith("-01-01T00:00:00+00:00")


def test_queues_show_the_three_lanes(dev: FloDev) -> None:
    listed = json.loads(flo("queues", "--json", home=dev.home).out)

    assert [lane["lane"] for lane in listed["items"]] == ["recurring", "webhook", "flow"]


def test_no_dead_letters_is_an_empty_list(dev: FloDev) -> None:
    ended = flo("dead-letters", "--json", home=dev.home)

    assert (ended.code, json.loads(ended.out)) == (0, [])


def test_doctor_finds_all_that_flo_dev_needs(home: Path) -> None:
    ended = flo("doctor", "--json", home=home)
    said = json.loads(ended.out)

    assert ended.code == 0, ended.out
    assert said["ok"]
    assert {"python", "sqlite", "redis", "node", "v8 isolates", "docker"} <= {check["name"] for check in said["checks"]}
    assert not home.exists()


def test_each_command_explains_itself(home: Path) -> None:
    ended = flo("--help", home=home)

    assert ended.code == 0
    assert {"dev", "run", "push", "invoke", "runs", "logs", "doctor", "worker"} <= set(ended.out.split())
