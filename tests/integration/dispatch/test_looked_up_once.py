"""Many runs that begin at once look up what they share only once."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from dispatch.store.session import Store
from schemas.catalog import load_catalog
from schemas.errors import NotFound
from schemas.nodes.spec import SoloBounds
from tests.making import add_flow
from workers.app_limits import StoredLimits
from workers.documents import StoredDocuments


class Counting:
    """A store that counts how often it is read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads = 0

    @asynccontextmanager
    async def read(self):
        self.reads += 1
        async with self._store.read() as connection:
            yield connection


async def test_the_limits_of_an_app(store: Store) -> None:
    counting = Counting(store)
    limits = StoredLimits(counting)

    found = await asyncio.gather(*(limits.read("shop") for _ in range(20)))

    assert (len(found), counting.reads) == (20, 1)


async def test_a_flow_version(store: Store) -> None:
    await add_flow(store)
    counting = Counting(store)
    documents = StoredDocuments(
        counting, load_catalog(), max_inline_http=timedelta(seconds=1), bounds=SoloBounds(), cluster=False
    )

    found = await asyncio.gather(*(documents.read("shop", "greet", 1) for _ in range(20)))

    assert counting.reads == 1
    assert all(document is found[0] for document in found)


async def test_a_version_that_is_missing_is_told_to_all_and_asked_for_again(store: Store) -> None:
    counting = Counting(store)
    documents = StoredDocuments(
        counting, load_catalog(), max_inline_http=timedelta(seconds=1), bounds=SoloBounds(), cluster=False
    )

    missed = await asyncio.gather(*(documents.read("shop", "none", 1) for _ in range(3)), return_exceptions=True)
    with pytest.raises(NotFound):
        await documents.read("shop", "none", 1)

    assert [type(one) for one in missed] == [NotFound] * 3
    assert counting.reads == 2
