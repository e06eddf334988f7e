"""One container from its making to the moment when it is confirmed dead, and the yard that sees to what is left."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from schemas.errors import FloError, Unavailable
from workers.sandboxes.docker.attached import Attached
from workers.sandboxes.docker.daemon import Daemon, NoDaemon, NotThere
from workers.sandboxes.docker.spec import Spec

log = structlog.get_logger()

#: Containers that are being started at once: more would only share the same processors, and none would be in time.
_STARTS_AT_ONCE = 4
#: Seconds that a container has to be confirmed dead, once nothing is heard of it any more, and once it is killed.
_GRACE = 2
#: Seconds that a program has to end at the end of its stdin.
_OBEDIENCE = 0.25
#: Seconds that closing waits for the last containers to be removed.
_LAST_PATIENCE = 5.0
#: Marks every container of ours with the worker that it belongs to.
OWNER = "flo.worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """All that is known of a container that is over."""

    #: Exit code, 128 + a signal's number where one ended it; None when it was lost.
    code: int | None
    #: The kernel killed something in it for want of memory.
    was_short_of_memory: bool
    #: Whether we have killed it.
    was_killed: bool
    wall: timedelta
    #: Why nobody knows how it ended; empty when that is known.
    lost: str = ""


class Container:
    """A container that runs, attached. `Yard.start` makes one."""

    def __init__(self, daemon: Daemon, id_: str, attached: Attached, held_until: Callable[[], float] | None) -> None:
        self.id = id_
        self._daemon = daemon
        self._attached = attached
        #: Given for one that ends itself: at the end of its stdin, and at that time at the latest.
        self._held_until = held_until
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._killing: asyncio.Task[None] | None = None
        self.ending = self._loop.create_task(self._finish(), name=f"container {id_[:12]}")

    def write(self, data: bytes) -> None:
        """Send to its stdin."""
        self._attached.write(data)

    def end_input(self) -> None:
        self._attached.end_input()

    def kill(self) -> None:
        """Kill everything in it now; `ending` tells when it is confirmed dead."""
        if self._killing is None and not self.ending.done():
            self._killing = self._loop.create_task(self._kill(), name=f"kill container {self.id[:12]}")

    async def _kill(self) -> None:
        if self._held_until is not None:
            # It is quicker than any kill, which has the daemon start a program. Whoever does not obey is killed.
            self._attached.end_input()
            await asyncio.wait([self._attached.ended], timeout=_OBEDIENCE)
        if self._attached.ended.done():
            return
        await self._kill_now()

    async def _kill_now(self) -> None:
        try:
            await self._daemon.ask(lambda client: client.kill(self.id))
        except NoDaemon as reason:
            log.warning("container.not_killed", container=self.id[:12], reason=str(reason))
            self._attached.close()  # its stdin ends with that, as far as the daemon still knows
        except FloError:
            return  # it is over already

    async def _finish(self) -> Ending:
        await self._attached.ended
        try:
            state = await self._settled()
        except NotThere:
            state, lost = {}, "somebody has removed it"
        except Unavailable as reason:
            # Nobody can tell; but one that its worker does not hold any more ends itself.
            if self._held_until is not None:
                await asyncio.sleep(max(0.0, self._held_until() - self._loop.time()))
            state, lost = {}, str(reason)
        else:
            lost = ""
        return Ending(
            code=state.get("ExitCode"),
            was_short_of_memory=bool(state.get("OOMKilled")),
            was_killed=self._killing is not None,
            wall=timedelta(seconds=self._loop.time() - self._began),
            lost=lost,
        )

    async def _settled(self) -> dict[str, Any]:
        """Return its state when it is dead, by force if need be: one that can't be heard is of no use."""
        if not (state := await self._state())["Running"]:
            return state
        with contextlib.suppress(NoDaemon):  # or it just takes longer
            await self._daemon.ask(lambda client: client.wait(self.id, timeout=_GRACE))
        if (await self._state())["Running"]:
            await self._kill_now()
            await self._daemon.ask(lambda client: client.wait(self.id, timeout=_GRACE))
        return await self._state()

    async def _state(self) -> dict[str, Any]:
        found = await self._daemon.ask(lambda client: client.inspect_container(self.id))
        state: dict[str, Any] = found["State"]
        return state


class Yard:
    """Starts the containers of one owner, and leaves none behind."""

    def __init__(self, daemon: Daemon, *, owner: str) -> None:
        self.daemon = daemon
        self._owner = owner
        #: To be held from before a container is started until what is in it is at work.
        self.starts = asyncio.Semaphore(_STARTS_AT_ONCE)
        self._living: dict[str, Container] = {}
        self._cleaning: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def start(
        self, spec: Spec, hear: Callable[[str, bytes], None], *, held_until: Callable[[], float] | None = None
    ) -> Container:
        """Start a container.

        Give `held_until` for a program that ends at the end of its stdin: it tells, by the loop's clock, when that has
        ended itself although nobody could end it.
        Raises NoDaemon, NotThere (the image is not there) or Declined; whatever it raises, no container is left.
        """
        if self._is_closed:
            raise Unavailable("the place for containers is closing")
        name = f"flo-{secrets.token_hex(8)}"
        config = spec.config() | {"Labels": {**spec.labels, OWNER: self._owner}}
        # What was asked of the daemon can't be taken back: if nobody waits any more, it is cleaned up afterwards.
        making = asyncio.ensure_future(self.daemon.ask(lambda c: c.create_container_from_config(config, name)))
        try:
            id_ = (await asyncio.shield(making))["Id"]
            attached = await Attached.open(await self.daemon.attach(id_), hear)
            await self.daemon.ask(lambda client: client.start(id_))
        except BaseException:
            self._clean_up(name, making)
            raise
        container = Container(self.daemon, id_, attached, held_until)
        self._living[container.id] = container
        container.ending.add_done_callback(lambda _: self._over(container))
        return container

    def mark(self, container: Container, name: str) -> None:
        """Name a container after what it is for now, so that `docker ps` tells. It may fail."""
        self._in_background(self.daemon.ask(lambda client: client.rename(container.id, name)))

    async def remove(self, container: str) -> None:
        """Remove a container, whosever it is; return when it is gone."""
        with contextlib.suppress(NotThere):
            await self.daemon.ask(lambda client: client.remove_container(container, force=True, v=True))

    async def aclose(self) -> None:
        """Kill what lives, and return when it is removed; what the daemon does not let go in time ends by itself."""
        self._is_closed = True
        for container in list(self._living.values()):
            container.kill()
        if living := [container.ending for container in self._living.values()]:
            await asyncio.wait(living, timeout=_LAST_PATIENCE)
        if self._cleaning:
            await asyncio.wait(self._cleaning, timeout=_LAST_PATIENCE)
        self.daemon.close()

    def _over(self, container: Container) -> None:
        del self._living[container.id]
        self._clean_up(container.id)

    def _clean_up(self, which: str, making: Awaitable[object] | None = None) -> None:
        async def remove() -> None:
            if making is not None:
                await making
            await self.daemon.ask(lambda client: client.remove_container(which, force=True, v=True))

        self._in_background(remove())

    def _in_background(self, work: Awaitable[object]) -> None:
        async def done() -> None:
            with contextlib.suppress(FloError):  # gone already; or the daemon is, and it is swept later
                await work

        task = asyncio.get_running_loop().create_task(done())
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)
