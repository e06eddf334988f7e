"""Keeps deliveries: each with its runs in one transaction, and those of the same instant together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.coalesce import Coalescer
from dispatch.store.runs import NewRun, insert_runs
from dispatch.store.session import Store
from dispatch.store.triggers import Delivery, find_delivery, insert_delivery, runs_of_delivery
from schemas.errors import Unavailable
from schemas.job import Job

#: Deliveries in one transaction: their bodies are in it, so fewer than runs.
_BATCH = 50


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a delivery; a repeat has the first one's id and runs, and no jobs."""

    delivery_id: str
    run_ids: tuple[str, ...]
    repeated: bool
    jobs: tuple[Job, ...] = ()


@dataclass(frozen=True, slots=True)
class _Offer:
    delivery: Delivery
    runs: Sequence[NewRun]


class Intake:
    """One process's mailbox."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offers: Coalescer[_Offer, Kept] = Coalescer(self._keep, most=_BATCH)

    async def keep(self, delivery: Delivery, runs: Sequence[NewRun]) -> Kept:
        """Write a delivery and its runs, or find the first delivery under the same sender's id."""
        return await self._offers.submit(_Offer(delivery, runs))

    async def _keep(self, offers: Sequence[_Offer]) -> Sequence[Kept]:
        answers: list[Kept] = []
        new: list[NewRun] = []
        async with self._store.write() as connection:
            made: dict[str, Kept] = {}
            for offer in offers:
                if await insert_delivery(connection, offer.delivery):
                    kept = _kept(offer)
                    made[kept.delivery_id] = kept
                    new.extend(offer.runs)
                else:
                    kept = await _first(connection, offer, made)
                answers.append(kept)
            await insert_runs(connection, new)
        return answers


def _kept(offer: _Offer) -> Kept:
    ids = tuple(run.id for run in offer.runs)
    return Kept(offer.delivery.id, ids, False, tuple(run.job() for run in offer.runs))


async def _first(connection: AsyncConnection, offer: _Offer, made: Mapping[str, Kept]) -> Kept:
    delivery = offer.delivery
    first = await find_delivery(connection, delivery.app, delivery.path, delivery.dedupe_key or "")
    if first is None:
        raise Unavailable("the delivery could not be kept; send it again")
    if first in made:  # two of a kind in one batch: the first one's runs are not in SQL yet
        return Kept(first, made[first].run_ids, True)
    events = [run.event for run in offer.runs if run.event is not None]
    return Kept(first, tuple(await runs_of_delivery(connection, delivery.app, events, first)), True)
