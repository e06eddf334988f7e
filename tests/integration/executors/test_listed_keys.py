"""An executor knows workers by the keys that the API lists, and by nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from executor_places import LEASE_LEFT, Program, javascript, opened_http, running_executor

from dispatch.run_keys import KeyPair, KeyRing, RunKeys
from dispatch.run_tokens import Signer
from dispatch.store.session import Store
from dispatch.store.vault import Vault
from schemas.errors import Unavailable
from schemas.settings import load_settings
from workers.executors.http.signing import StoredSigning

_REPOSITORY = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def api_url(home: Path, redis_url: str) -> Iterator[str]:
    """A real API on the home's own database."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_REPOSITORY), "FLO_HOME": str(home)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "scheduler", "api", "--port", "0"],
        env=environment | {"REDIS_URL": redis_url},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().rsplit(" ", 1)[1].strip()
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()


@pytest.fixture
def program(tmp_path: Path, api_url: str) -> Iterator[Program]:
    trusting = {"FLO_EXECUTOR_KEY": "", "FLO_URL": api_url, "FLO_EXECUTION_MODE": "SANDBOX_CODE_ONLY"}
    with running_executor(tmp_path / "executor", **trusting) as one:
        yield one


@pytest.fixture
async def signing(home: Path, api_url: str) -> AsyncIterator[StoredSigning]:
    """What a worker of this home signs with."""
    settings = load_settings({"FLO_HOME": str(home)})
    store = await Store.open(settings.store_url)
    yield StoredSigning(settings, store)
    await store.aclose()


class SignsWith:
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def signer(self) -> Signer:
        return self._signer


async def test_a_worker_of_the_same_database_is_believed(program: Program, signing: StoredSigning) -> None:
    async with opened_http([program.url], signing=signing) as place:
        assert await place.result(place.order(javascript("export default () => 1"))) == {"output": 1}


async def test_a_stranger_with_a_key_pair_of_his_own_is_not(
    program: Program, signing: StoredSigning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.executors.http.spread.Spread.deadline", lambda self: 0.0)
    pair = KeyRing(KeyPair.make(datetime.now(UTC))).current
    stranger = SignsWith(Signer(pair.private, (await signing.signer()).kid))

    async with opened_http([program.url], signing=stranger) as place:
        with pytest.raises(Unavailable, match="it answers 401"):
            await place.run(place.order(javascript("export default () => 1")))


async def test_a_run_goes_on_under_the_new_key_after_a_rotation(
    program: Program, signing: StoredSigning, home: Path, api_url: str
) -> None:
    store = await Store.open(load_settings({"FLO_HOME": str(home)}).store_url)
    rotating = RunKeys(store, Vault.open(home))
    old = SignsWith(await rotating.signer())
    await rotating.rotate()
    new = SignsWith(await rotating.signer())

    async with opened_http([program.url], signing=new, lease_left=lambda: LEASE_LEFT) as place:
        assert await place.result(place.order(javascript("export default () => 1"))) == {"output": 1}
    async with opened_http([program.url], signing=old, lease_left=lambda: LEASE_LEFT) as place:
        assert await place.result(place.order(javascript("export default () => 2"))) == {"output": 2}

    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{api_url}/api/v1/execution/.well-known/jwks.json")
    assert len(answer.json()["keys"]) == 2
    await store.aclose()
