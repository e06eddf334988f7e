"""Executors elsewhere speak for their attempts, and for nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from conftest import Api

from dispatch.claims import Claim
from dispatch.run_keys import LASTS, RunKeys
from dispatch.run_tokens import HoldRight, RunRight, Signer, read_with_key
from schemas.outcome import Retry

MINUTE = timedelta(minutes=1)


@dataclass
class Remote:
    """An executor elsewhere, with the token of its attempt."""

    api: Api
    claim: Claim
    token: str

    async def post(self, path: str, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return await self.api.send("POST", f"/api/v1/execution/{path}", json=body, headers=headers)

    async def tell(self, *numbers: int, **changes: Any) -> httpx.Response:
        now = datetime.now(UTC).isoformat()
        told = {"type": "log", "time": now, "data": {"level": "info", "message": "m"}} | changes
        return await self.post("events", events=[{"seq": seq, **told} for seq in numbers])

    async def numbers(self) -> list[int]:
        return [event.seq for event in await self.api.spine.feed.read(self.claim.run_id)]


async def remote(api: Api, run_id: str) -> Remote:
    claim = await api.take(run_id)
    right = RunRight(run_id=run_id, app="shop", attempt=claim.attempt)
    return Remote(api, claim, (await api.spine.run_keys.signer()).run(right, lasts=MINUTE))


@pytest.fixture
async def there(shop: Api) -> Remote:
    return await remote(shop, await shop.start())


async def test_events_are_taken_once_however_often_they_are_sent(there: Remote) -> None:
    first = there.claim.last_seq + 1

    answers = [await there.tell(first, first + 1), await there.tell(first, first + 1, first + 2)]

    assert [answer.json()["accepted"] for answer in answers] == [True, True]
    assert answers[-1].json()["last_seq"] == first + 2
    assert await there.numbers() == list(range(1, first + 3))


async def test_a_gap_is_refused(there: Remote) -> None:
    answer = await there.tell(there.claim.last_seq + 2)

    assert answer.status_code == 409
    assert f"the history ends at {there.claim.last_seq}" in answer.json()["detail"]


async def test_an_executor_can_not_tell_how_a_run_ended(there: Remote) -> None:
    assert (await there.tell(there.claim.last_seq + 1, type="run_completed")).status_code == 409


async def test_progress_says_that_the_run_is_still_ours(there: Remote) -> None:
    answer = await there.post("progress", percent=50)

    assert answer.json() == {
        "accepted": True, "status": "running", "last_seq": there.claim.last_seq, "cancel": None
    }  # fmt: skip


async def test_an_attempt_is_told_that_its_run_is_to_be_cancelled(there: Remote) -> None:
    await there.api.send("POST", f"/api/v1/runs/{there.claim.run_id}/cancel")

    assert (await there.post("progress")).json()["cancel"]


async def test_an_older_attempt_is_refused_with_the_real_status(shop: Api, there: Remote) -> None:
    again = Retry(after=timedelta(0), reason="its worker died")
    await shop.spine.writer.record(there.claim, again, events=[], last_seq=there.claim.last_seq)

    queued = (await there.post("progress")).json()
    newer = await remote(shop, there.claim.run_id)
    told = (await there.tell(newer.claim.last_seq + 1)).json()

    assert (queued["accepted"], queued["status"]) == (False, "queued")
    assert (told["accepted"], told["status"]) == (False, "running")
    assert await newer.numbers() == list(range(1, newer.claim.last_seq + 1))
    assert (await newer.post("progress")).json()["accepted"] is True


async def test_a_run_that_is_over_says_so(shop: Api) -> None:
    run_id = await shop.start()
    await shop.finish(run_id)
    right = RunRight(run_id=run_id, app="shop", attempt=1)
    token = (await shop.spine.run_keys.signer()).run(right, lasts=MINUTE)

    answer = await shop.send("POST", "/api/v1/execution/progress", headers={"Authorization": f"Bearer {token}"})

    assert (answer.json()["accepted"], answer.json()["status"]) == (False, "succeeded")


async def test_nothing_but_a_run_token_opens_the_door(there: Remote) -> None:
    held = (await there.api.spine.run_keys.signer()).hold(HoldRight(worker="wrk_1"))
    right = RunRight(run_id=there.claim.run_id, app="shop", attempt=1)
    forged = Signer("a secret that nobody was ever given").run(right, lasts=MINUTE)
    key = (there.api.settings.home / "api_key").read_text().strip()

    answers = [await Remote(there.api, there.claim, token).post("progress") for token in (held, forged, key)]

    assert [answer.status_code for answer in answers] == [401, 401, 401]


async def test_the_keys_are_listed_for_everyone_without_their_private_halves(shop: Api) -> None:
    answer = await shop.send("GET", "/api/v1/execution/.well-known/jwks.json", headers={"Authorization": ""})

    assert answer.status_code == 200
    assert [set(key) for key in answer.json()["keys"]] == [{"kty", "crv", "x", "y", "kid", "use", "alg"}]


async def test_replicas_share_keys_and_tokens_survive_a_rotation(shop: Api) -> None:
    spine = shop.spine
    right = RunRight(run_id="run_1", app="shop", attempt=1)
    signer = await RunKeys(spine.store, spine.vault).signer()
    token = signer.run(right, lasts=MINUTE)

    ring = await RunKeys(spine.store, spine.vault).rotate()
    later = RunKeys(spine.store, spine.vault)
    key = await later.public_key(signer.kid)

    assert ring.current.kid != signer.kid
    assert (await later.signer()).kid == ring.current.kid
    assert key is not None
    assert read_with_key(token, key) == right
    assert ring.is_due(datetime.now(UTC) + LASTS + MINUTE)
