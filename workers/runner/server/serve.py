"""An executor's process: opens the sandboxes, takes a port, and stops in good order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import structlog
import uvicorn
import uvloop

from dispatch.listening import ListeningServer, take_port
from schemas.app import AppLimits
from schemas.catalog import load_catalog
from schemas.npm import NpmAllow
from schemas.settings import ExecutionMode, Settings
from workers.app_limits import LimitsOfApps
from workers.executors.modes import ModeExecutor
from workers.executors.openings import Openings
from workers.runner.server.app import Routes
from workers.runner.server.flights import Flights, SharedTenure
from workers.runner.server.trust import open_trust
from workers.tenure import Begin, without_end

log = structlog.get_logger()

#: How long runs may go on once the executor is asked to stop.
DRAIN = timedelta(seconds=30)


def serve(settings: Settings, *, host: str, port: int, capacity: int) -> None:
    """Execute until SIGTERM or SIGINT. Raises FloError, with the fix, for whatever does not work here."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, host, port, capacity))


async def _serve(settings: Settings, host: str, port: int, capacity: int) -> None:
    async with httpx.AsyncClient() as http:
        trust = open_trust(settings, http, host=host)
        listening = take_port(host, port)
        async with open_flights(settings, capacity) as (flights, mode):
            routes = Routes(flights, trust, about={"mode": str(mode)})
            config = uvicorn.Config(
                routes.app(), http="httptools", access_log=False, log_config=None, server_header=False, lifespan="off",
                timeout_keep_alive=75, timeout_graceful_shutdown=5,
            )  # fmt: skip
            await _Server(config, flights).serve(sockets=[listening])


class KnownLimits(dict[str, AppLimits]):
    """What the newest order of each app said that its operator allows."""

    async def read(self, app: str) -> AppLimits:
        return self.get(app, AppLimits())


@asynccontextmanager
async def open_modes(
    settings: Settings, limits: LimitsOfApps, *, begin: Begin = without_end
) -> AsyncIterator[tuple[ModeExecutor, ExecutionMode]]:
    """Open the same modes that a worker has. Raises Unavailable with the reason."""
    openings = Openings(settings, begin=begin, limits=limits)
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS, npm=NpmAllow.parse("*"), hub=settings.hub)
    modes = ModeExecutor(openings.all(), settings=settings, limits=limits, catalog=catalog)
    try:
        yield modes, await modes.start()
    finally:
        await modes.aclose()
        await openings.aclose()


@asynccontextmanager
async def open_flights(settings: Settings, capacity: int) -> AsyncIterator[tuple[Flights, ExecutionMode]]:
    """Open the modes, for attempts that workers send. Raises Unavailable with the reason."""
    limits, tenure = KnownLimits(), SharedTenure()
    async with open_modes(settings, limits, begin=tenure.begin) as (modes, mode):
        flights = Flights(modes, limits, tenure, capacity=capacity)
        try:
            yield flights, mode
        finally:
            await flights.aclose()


class _Server(ListeningServer):
    """Goes on answering while runs finish: their workers listen to them."""

    def __init__(self, config: uvicorn.Config, flights: Flights) -> None:
        super().__init__(config, name="flo executor")
        self._flights = flights
        self._draining: asyncio.Task[None] | None = None

    def stop(self) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(DRAIN), name="drain")
        else:  # asked twice
            self._draining.cancel()
            self._draining = asyncio.create_task(self._drain(timedelta(0)), name="drain at once")

    async def _drain(self, grace: timedelta) -> None:
        log.info("executor.stopping", running=self._flights.running)
        await self._flights.drain(grace)
        self.should_exit = True
