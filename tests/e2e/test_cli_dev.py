"""`flo dev` with real processes: it starts all, keeps all running, and leaves nothing behind."""

from __future__ import annotations

import signal
from pathlib import Path

from flo.wire import JSONValue
from tests.e2e.flo_program import flo, flo_dev, kill, status_of, until, until_all_gone


def test_ctrl_c_stops_every_process_and_leaves_no_stale_file(home: Path) -> None:
    with flo_dev(home) as dev:
        assert dev.endpoint["api"].startswith("http://127.0.0.1:")
        family = dev.family()

        code = dev.stop()

    assert code == 0
    until_all_gone(family)
    assert len(family) >= 5
    assert not (home / "endpoint.json").exists()
    assert not (home / "dev.lock").exists()


def test_a_killed_flo_dev_takes_every_child_along(home: Path) -> None:
    with flo_dev(home) as dev:
        assert dev.endpoint
        family = dev.family()

        dev.process.kill()

        until_all_gone(family)


def test_a_home_that_a_killed_flo_dev_left_can_be_used_again(home: Path) -> None:
    with flo_dev(home) as killed:
        assert killed.endpoint
        killed.process.kill()

    with flo_dev(home) as dev:
        assert dev.endpoint["pid"] == dev.process.pid


def test_a_second_flo_dev_on_the_same_home_is_told_of_the_first(home: Path) -> None:
    with flo_dev(home) as dev:
        assert dev.endpoint

        second = flo("dev", "--port", "0", "--no-flower", home=home)

        assert second.code == 2
        assert f"another `flo dev` (process {dev.process.pid}) is using the home" in second.error
        assert dev.endpoint["pid"] == dev.process.pid


def test_a_killed_worker_is_started_again_and_runs_jobs(home: Path, tmp_path: Path) -> None:
    flow = tmp_path / "hello.json"
    with flo_dev(home) as dev:
        assert dev.endpoint
        flo("init", str(flow), home=home)
        flo("push", str(flow), home=home)
        before = dev.child("-m workers --name worker-1")

        kill(before)
        answer = flo("invoke", "--flow", "hello", "--input", '{"name": "Ada"}', home=home)

        assert answer.code == 0, answer.error
        assert answer.out.split() == ["{", '"message":', '"hello', 'Ada"', "}"]
        assert dev.child("-m workers --name worker-1") != before
        assert "worker-1 was killed by SIGKILL: starting it again" in dev.said


def test_runs_outlive_a_restart_of_flo_dev(home: Path, tmp_path: Path) -> None:
    flow = tmp_path / "hello.json"
    flo("init", str(flow), home=home)
    with flo_dev(home) as dev:
        assert dev.endpoint
        flo("push", str(flow), home=home)
        run_id = flo("invoke", "--flow", "hello", "--async", home=home).out.strip()
        dev.client().finished(run_id)
        dev.stop()

    with flo_dev(home) as again:
        run = again.client().run(run_id)

    assert run["status"] == "succeeded"


def test_a_second_ctrl_c_does_not_wait_for_runs_in_flight(home: Path) -> None:
    delay: JSONValue = {"id": "wait", "node_type": "time.delay", "config": {"delay_ms": 120_000}}
    with flo_dev(home) as dev, dev.client() as client:
        client.push("slow", {"name": "slow", "nodes": [delay]})
        client.put_event("slow", kind="invoke", flow="slow")
        run_id = client.invoke_async("slow")["run_id"]
        until(lambda: client.run(run_id)["status"] == "running" or None)
        family = dev.family()

        dev.process.send_signal(signal.SIGINT)
        until(lambda: "workers first finish what they hold" in dev.said or None)
        code = dev.stop()

    assert code == 0
    until_all_gone(family)


def test_flower_answers_on_its_own_port(home: Path) -> None:
    with flo_dev(home, "--flower-port", "0") as dev:
        url = dev.endpoint["flower"]

        assert url is not None
        assert until(lambda: status_of(url)) == 200
