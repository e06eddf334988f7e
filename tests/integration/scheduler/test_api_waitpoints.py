"""Waitpoints over HTTP: whoever has the URL resumes the run, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from schemas.outcome import Parked, Wait, WaitKind
from schemas.run import EventType, Happening
from schemas.waitpoint import PATH, new_token, waitpoint_of
from tests.integration.scheduler.conftest import Api


class Waiting:
    """A run of `shop` that is parked, and the URL at which it waits."""

    def __init__(self, api: Api, run_id: str, path: str) -> None:
        self.api = api
        self.run_id = run_id
        self.path = path

    async def send(self, method: str = "POST", **rest: Any) -> httpx.Response:
        """Send as a stranger: without a key."""
        transport = self.api.client._transport
        async with httpx.AsyncClient(transport=transport, base_url="http://flo") as stranger:
            return await stranger.request(method, self.path, **rest)

    async def heard(self) -> list[Any]:
        events = await self.api.spine.feed.read(self.run_id)
        return [event.happening.data["answer"] for event in events if event.happening.type is EventType.RUN_RESUMED]


async def park(api: Api, kind: WaitKind, *, until: datetime | None = None, message: str | None = None) -> Waiting:
    run_id, token = await api.start(), new_token()
    url = f"http://flo{PATH}{token}"
    wait = Wait(node_id="it", kind=kind, until=until, waitpoint=waitpoint_of(token), url=url, message=message)
    await api.finish(run_id, Parked(waits=(wait,)))
    return Waiting(api, run_id, PATH + token)


@pytest.fixture
async def webhook(shop: Api) -> Waiting:
    return await park(shop, WaitKind.WEBHOOK)


@pytest.fixture
async def approval(shop: Api) -> Waiting:
    return await park(shop, WaitKind.APPROVAL, message="Ship <it>?")


async def test_a_request_without_a_key_resumes_the_run_with_what_it_brings(webhook: Waiting) -> None:
    answer = await webhook.send("PUT", params={"a": ["1", "2"]}, json={"paid": True}, headers={"X-Shop": "ok"})

    assert (answer.status_code, answer.json()) == (200, {"run_id": webhook.run_id, "resumed": True})
    (heard,) = await webhook.heard()
    assert (heard["body"], heard["query"], heard["method"]) == ({"paid": True}, {"a": ["1", "2"]}, "PUT")
    assert heard["headers"]["x-shop"] == "ok"


async def test_secrets_in_headers_do_not_reach_the_flow(webhook: Waiting) -> None:
    await webhook.send(headers={"Authorization": "Bearer s3cret", "Cookie": "s3cret"})

    assert "s3cret" not in str(await webhook.heard())


@pytest.mark.parametrize(
    ("content", "kind", "body"), [(b"a=1", "text/plain", "a=1"), (b"", None, None), (b"[1]", None, [1])]
)
async def test_any_body_will_do(webhook: Waiting, content: bytes, kind: str | None, body: Any) -> None:
    await webhook.send(content=content, headers={"Content-Type": kind} if kind else {})

    assert [heard["body"] for heard in await webhook.heard()] == [body]


async def test_json_that_is_none_is_refused_and_the_run_waits_on(webhook: Waiting) -> None:
    answer = await webhook.send(content=b"{", headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert await webhook.heard() == []


async def test_the_second_request_is_told_that_it_comes_too_late(webhook: Waiting) -> None:
    await webhook.send()

    again = await webhook.send()

    assert again.status_code == 409
    assert "can be only once" in again.json()["detail"]


async def test_a_run_that_is_over_is_gone(webhook: Waiting) -> None:
    cancelled = await webhook.api.send("POST", f"/api/v1/runs/{webhook.run_id}/cancel")

    answer = await webhook.send()

    assert (cancelled.status_code, answer.status_code) == (200, 410)


async def test_a_wait_that_is_over_is_gone(shop: Api) -> None:
    waiting = await park(shop, WaitKind.WEBHOOK, until=datetime.now(UTC) - timedelta(seconds=1))

    assert (await waiting.send()).status_code == 410


@pytest.mark.parametrize("token", ["x", "A" * 43, "A" * 101])
async def test_a_token_that_is_none_is_not_found(shop: Api, token: str) -> None:
    answer = await shop.send("POST", PATH + token)

    assert answer.status_code in (404, 422)


async def test_a_waiting_run_says_what_it_waits_for_and_where(webhook: Waiting) -> None:
    run = (await webhook.api.send("GET", f"/api/v1/runs/{webhook.run_id}")).json()
    (listed,) = (await webhook.api.send("GET", "/api/v1/runs", params={"status": "waiting"})).json()["items"]

    assert run["status"] == "waiting"
    assert run["waits"] == [{"node_id": "it", "kind": "webhook", "until": None, "url": f"http://flo{webhook.path}"}]
    assert listed["run_id"] == webhook.run_id


async def test_what_was_resumed_no_longer_says_that_it_waits(webhook: Waiting) -> None:
    await webhook.send()

    run = (await webhook.api.send("GET", f"/api/v1/runs/{webhook.run_id}")).json()

    assert run["status"] == "queued"
    assert "waits" not in run


async def test_to_look_at_a_question_does_not_answer_it(approval: Waiting) -> None:
    asked = await approval.send("GET")

    assert (asked.json()["kind"], asked.json()["message"]) == ("approval", "Ship <it>?")
    assert await approval.heard() == []


async def test_a_browser_gets_a_page_with_the_question_in_which_nothing_is_markup(approval: Waiting) -> None:
    page = await approval.send("GET", headers={"Accept": "text/html"})

    assert "Ship &lt;it&gt;?" in page.text
    assert 'name="approved" value="yes"' in page.text
    assert page.headers["referrer-policy"] == "no-referrer"


async def test_a_decision_reaches_the_flow(approval: Waiting) -> None:
    answer = await approval.send(json={"approved": False, "by": "bo", "comment": "not yet"})

    assert answer.status_code == 200
    assert await approval.heard() == [{"approved": False, "by": "bo", "comment": "not yet"}]


async def test_the_page_s_own_form_decides(approval: Waiting) -> None:
    answer = await approval.send(data={"approved": "yes", "by": "bo"})

    assert "Noted: approved" in answer.text
    assert await approval.heard() == [{"approved": True, "by": "bo", "comment": ""}]


@pytest.mark.parametrize("body", [{}, {"approved": "yes"}, {"approved": True, "more": 1}])
async def test_a_decision_that_is_none_is_refused_with_what_is_wrong(approval: Waiting, body: Any) -> None:
    answer = await approval.send(json=body)

    assert answer.status_code == 422
    assert await approval.heard() == []


async def test_a_run_is_done_again_from_a_node_on(api: Api) -> None:
    await api.push(document=_CHAIN)
    await api.event("go")
    run_id = await api.start(json={"payload": {}})
    outputs = {"outputs": {"message": "kept"}, "attempt": 1}
    await api.finish(run_id, happenings=[Happening(EventType.NODE_COMPLETED, outputs, name) for name in ("a", "b")])

    answer = await api.send("POST", f"/api/v1/runs/{run_id}/retry", json={"from_node": "b"})
    again = (await api.send("GET", f"/api/v1/runs/{answer.json()['run_id']}")).json()
    claim = await api.take(again["run_id"])

    assert answer.status_code == 202
    assert [(one["status"], one["outputs"]) for one in again["nodes"]] == [
        ("succeeded", {"message": "kept"}), ("pending", None)
    ]  # fmt: skip
    assert claim.last_seq == 2


async def test_a_node_to_begin_at_that_is_not_there_is_a_mistake(shop: Api) -> None:
    run_id = await shop.start()
    await shop.finish(run_id)

    answer = await shop.send("POST", f"/api/v1/runs/{run_id}/retry", json={"from_node": "nope"})

    assert answer.status_code == 422
    assert 'no node "nope"' in answer.json()["errors"][0]["message"]


_CHAIN: dict[str, Any] = {
    "name": "chain",
    "nodes": [{"id": name, "node_type": "debug.log", "config": {}} for name in "ab"],
    "connections": [{"from_node": "a", "from_port": "message", "to_node": "b", "to_port": "message"}],
}
