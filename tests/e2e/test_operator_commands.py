"""The commands of those who look after runs: limits, dead letters and retries, against a real `flo dev`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatch.store.runs import NewRun
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.outcome import Retry
from schemas.run import Lane
from tests.e2e.flo_program import FloDev, flo, flo_dev_with_hello, until


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FloDev]:
    with flo_dev_with_hello(tmp_path_factory.mktemp("operator")) as running:
        yield running


def said(*command: str, home: Path) -> Any:
    """Run a command that prints JSON."""
    ended = flo(*command, "--json", home=home)
    assert ended.code == 0, ended.error
    return json.loads(ended.out)


async def dead_run(dev: FloDev) -> str:
    """Accept a run, take it as a worker does, and lose it for good."""
    store = await Store.open(f"sqlite:///{dev.home / 'flo.db'}")
    try:
        writer = RunWriter(store)
        run = NewRun(
            app="default",
            flow="hello",
            version=1,
            event=None,
            lane=Lane.FLOW,
            payload={"name": "Ada"},
            max_attempts=1,
        )
        await writer.accept(run)
        claim = await writer.take(run.id, owner="wrk_burnt", executor="inline")
        assert claim is not None
        lost = Retry(after=timedelta(0), reason="its worker burnt")
        await writer.record(claim, lost, events=[], last_seq=claim.last_seq)
    finally:
        await store.aclose()
    return run.id


def unreadable_message(dev: FloDev, body: str) -> str:
    """Send what is no job to the lane `flow`, and give its id once a worker has kept it."""
    variables = Path(f"/proc/{dev.child('scheduler api')}/environ").read_text().split("\0")
    url = next(one.removeprefix("REDIS_URL=") for one in variables if one.startswith("REDIS_URL="))
    with redis.Redis.from_url(url) as broker:
        broker.lpush("flow", body)

    def kept() -> str | None:
        letters = said("dead-letters", home=dev.home)
        return next((one["id"] for one in letters if one["kind"] == "message" and one["body"] == body), None)

    return until(kept)


# flo limits


def test_limits_that_are_set_are_shown(dev: FloDev) -> None:
    given = {"max_concurrency": 3, "rate_limit": {"runs": 10, "per_seconds": 60.0}}

    flo("limits", "shop", "--set", json.dumps(given), home=dev.home)
    shown = said("limits", "shop", home=dev.home)
    table = flo("limits", "shop", home=dev.home).out

    assert {name: shown[name] for name in given} == given
    assert "the server's default" in table
    assert '{"runs": 10, "per_seconds": 60.0}' in table


def test_limits_are_read_from_stdin_and_what_is_left_out_is_the_default_again(dev: FloDev) -> None:
    flo("limits", "bank", "--set", '{"max_concurrency": 3}', home=dev.home)

    ended = flo("limits", "bank", "--set", "@-", home=dev.home, stdin='{"key_concurrency": 2}')
    shown = said("limits", "bank", home=dev.home)

    assert ended.code == 0, ended.error
    assert (shown["max_concurrency"], shown["key_concurrency"]) == (None, 2)


def test_null_is_refused_and_lifts_no_limit(dev: FloDev) -> None:
    flo("limits", "mine", "--set", '{"max_concurrency": 3}', home=dev.home)

    ended = flo("limits", "mine", "--set", "null", home=dev.home)

    assert ended.code == 2
    assert "--set must be a JSON object" in ended.error
    assert said("limits", "mine", home=dev.home)["max_concurrency"] == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nowhere"], 'there is no app "nowhere"'),
        (["shop", "--set", "{"], "--set is not JSON"),
        (["shop", "--set", "@"], "give @FILE, or @- for stdin"),
        (["shop", "--set", "@/none.json"], "/none.json can't be read"),
        (["shop", "--set", '{"max_concurency": 2}'], 'did you mean "max_concurrency"?'),
        (["shop", "--set", '{"max_concurrency": 0}'], "max_concurrency: must be at least 1; given 0"),
        (["shop", "--set", '{"modes": ["warp"]}'], 'unknown mode "warp" (one of local, inline'),
        (["a b", "--set", "{}"], "app: must match pattern"),
        (["..", "--set", "{}"], '".." can\'t name anything here'),
        (["", "--set", "{}"], '"" can\'t name anything here'),
    ],
)
def test_wrong_limits_are_refused_with_the_fix(dev: FloDev, given: list[str], said: str) -> None:
    ended = flo("limits", *given, home=dev.home)

    assert (ended.code, ended.out) == (2, "")
    assert ended.error.startswith("Error: ")
    assert said in ended.error


# flo dead-letters


async def test_a_dead_run_is_listed_shown_and_redriven(dev: FloDev) -> None:
    run = await dead_run(dev)

    listed = flo("dead-letters", home=dev.home).out
    shown = flo("dead-letters", "show", run, home=dev.home).out
    redriven = flo("dead-letters", "redrive", run, home=dev.home)

    assert run in listed
    assert "its worker burnt" in shown
    assert "wrk_burnt" in shown
    assert (redriven.code, redriven.out) == (0, f"{run} queued\n")
    assert dev.client().finished(run)["result"] == {"message": "hello Ada"}
    assert flo("dead-letters", "show", run, home=dev.home).code == 2


async def test_all_dead_runs_of_a_flow_are_redriven(dev: FloDev) -> None:
    several = [await dead_run(dev), await dead_run(dev)]

    others = flo("dead-letters", "redrive", "--all", "--flow", "other", home=dev.home)
    same = flo("dead-letters", "redrive", "--all", "--app", "default", "--flow", "hello", home=dev.home)

    assert others.out == "0 runs queued\n"
    assert same.out == "2 runs queued\n"
    assert [dev.client().finished(run)["status"] for run in several] == ["succeeded", "succeeded"]


def test_an_unreadable_message_is_listed_shown_and_discarded(dev: FloDev) -> None:
    message = unreadable_message(dev, "no job at all")

    shown = flo("dead-letters", "show", message, home=dev.home).out
    discarded = flo("dead-letters", "discard", message, home=dev.home)

    assert "redis, lane flow, 13 bytes" in shown
    assert "body     no job at all" in shown
    assert (discarded.code, discarded.out) == (0, f"{message} discarded\n")
    assert said("dead-letters", home=dev.home) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["show", "run_none"], "there is no run run_none"),
        (["redrive"], "name a run to redrive, or give --all"),
        (["redrive", "run_none", "--all"], "and not both"),
        (["redrive", "run_none", "--flow", "hello"], "give --all with it"),
        (["redrive", "run_none"], "there is no run run_none"),
        (["redrive", "--all", "--app", "a b"], "app: must match pattern"),
        (["discard", "msg_none"], "there is no message msg_none"),
        (["discard", "a/b"], '"a/b" can\'t name anything here'),
    ],
)
def test_a_wrong_word_about_dead_letters_is_refused_with_the_fix(dev: FloDev, given: list[str], said: str) -> None:
    ended = flo("dead-letters", *given, home=dev.home)

    assert (ended.code, ended.out) == (2, "")
    assert ended.error.startswith("Error: ")
    assert said in ended.error


def test_only_a_dead_run_is_redriven_or_shown_as_a_dead_letter(dev: FloDev) -> None:
    run = said("invoke", "--flow", "hello", home=dev.home)["run_id"]

    redriven = flo("dead-letters", "redrive", run, home=dev.home)
    shown = flo("dead-letters", "show", run, home=dev.home)

    assert (redriven.code, shown.code) == (2, 2)
    assert f"run {run} is succeeded; only a dead-lettered run can be redriven" in redriven.error
    assert f"run {run} is succeeded and no dead letter" in shown.error


# flo runs retry


def test_a_run_is_retried_from_a_node_on_and_keeps_what_came_before(dev: FloDev) -> None:
    first = said("invoke", "--flow", "hello", "--input", '{"name": "Ada"}', home=dev.home)["run_id"]

    retried = said("runs", "retry", first, "--from", "say", home=dev.home)["run_id"]
    ended = dev.client().finished(retried)
    done = [event["node_id"] for event in dev.client().events(retried) if event["type"] == "node_started"]

    assert ended["result"] == {"message": "hello Ada"}
    assert done == ["say"]


def test_a_retry_without_a_node_does_all_of_it_again(dev: FloDev) -> None:
    first = said("invoke", "--flow", "hello", home=dev.home)["run_id"]

    retried = flo("runs", "retry", first, home=dev.home)
    run = retried.out.split()[0]
    dev.client().finished(run)
    done = [event["node_id"] for event in dev.client().events(run) if event["type"] == "node_started"]

    assert retried.out == f"{run} queued\n"
    assert done == ["greet", "say"]


def test_a_retry_from_a_node_that_is_not_there_names_those_that_are(dev: FloDev) -> None:
    run = said("invoke", "--flow", "hello", home=dev.home)["run_id"]

    ended = flo("runs", "retry", run, "--from", "sya", home=dev.home)

    assert ended.code == 2
    assert 'flow "hello" has no node "sya"; it has: greet, say' in ended.error


@pytest.mark.parametrize("command", ["retry", "cancel", "show"])
@pytest.mark.parametrize("run", ["run_none", "a b", "", "../runs"])
def test_a_run_that_can_not_be_is_refused(dev: FloDev, command: str, run: str) -> None:
    ended = flo("runs", command, run, home=dev.home)

    assert (ended.code, ended.out) == (2, "")
    assert ended.error.startswith("Error: ")
    assert "Traceback" not in ended.error
