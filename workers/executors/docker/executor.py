"""Each run in a container of its own, used once: SANDBOX_PROCESS, with a container in place of the box.

The same engine, desk and verdicts as in boxes; `workers/sandboxes/docker/runner.py` is the wall.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from weakref import WeakKeyDictionary

import structlog

from schemas.catalog import Catalog
from schemas.errors import Refused, Unavailable
from schemas.json import JSONObject
from schemas.modes import mode_for
from schemas.outcome import ErrorKind, Failed, Outcome, RunError
from schemas.settings import ExecutionMode
from workers.app_limits import LimitsOfApps
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.executors.boxed.desk import Services
from workers.executors.boxed.engine_box import EngineBox
from workers.executors.boxed.per_run import BoxPerRun
from workers.executors.boxed.supply import BoxSupply, Kind
from workers.executors.boxed.terms import Terms
from workers.executors.docker.wishes import Shape, shape_for, usual_shape
from workers.executors.modes import refusals
from workers.sandboxes.box.egress import egress_to
from workers.sandboxes.docker.daemon import NotThere
from workers.sandboxes.docker.place import DockerPlace
from workers.sandboxes.docker.runner import ContainedProgram
from workers.sandboxes.docker.spec import Spec

log = structlog.get_logger()

#: Where hub packages are in a container: in the runner image, if anywhere.
_HUB = "/opt/flo/hub"
#: What a container means for the code in it: as in the box of one run.
_MODE = ExecutionMode.SANDBOX_PROCESS


class DockerExecutor:
    """Runs that ask for nothing special get a container that was started before them."""

    def __init__(
        self,
        place: DockerPlace,
        *,
        limits: LimitsOfApps,
        catalog: Catalog,
        services: Callable[[], Services],
        terms: Terms,
    ) -> None:
        """`services` is called when a run first needs them."""
        self._place = place
        self._settings = place.settings
        self._limits = limits
        self._catalog = catalog
        self._services = services
        self._terms = terms
        self._usual = usual_shape(place.settings)
        self._programs: WeakKeyDictionary[EngineBox, ContainedProgram] = WeakKeyDictionary()
        self._pool = self._runs_in(self._usual, ready=place.settings.docker_ready)

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        limits = await self._limits.read(order.app)
        try:
            mode_for(order.backend_config, limits, self._settings)  # a container is stronger than any that it may name
            shape = shape_for(order.backend_config, self._settings)
        except Refused as refusal:
            return Failed(error=RunError(kind=ErrorKind.FORBIDDEN, message=str(refusal)))
        for error in refusals(order.document, self._catalog, _MODE):
            return Failed(error=error)
        egress = egress_to(limits.egress if limits.egress is not None else self._settings.reach)
        runs = self._pool if shape == self._usual else self._runs_in(shape, ready=0)
        return await runs.run(replace(order, egress=egress), events)

    async def aclose(self) -> None:
        """Kill those that wait; containers of runs end with their runs, and the place sees to what is left."""
        await self._pool.aclose()

    def _runs_in(self, shape: Shape, *, ready: int) -> BoxPerRun:
        terms = replace(self._terms, memory_mb=shape.memory_mb)
        return BoxPerRun(BoxSupply(partial(self._make, shape), ready=ready), terms, on_given=self._mark)

    async def _make(self, shape: Shape, kind: Kind) -> EngineBox:
        """Start an engine in a container. Raises Unavailable when that does not work."""
        images, services = self._place.images, self._services()
        await images.need_runner(shape.image)
        inside: JSONObject = {
            "mode": str(_MODE),
            "hub": _HUB,
            "with_code": kind.with_code,
            "custom": services.operators.described() if services.operators is not None else [],
        }
        spec = Spec(
            image=shape.image, memory_mb=shape.memory_mb, cpus=shape.cpus, runtime=shape.runtime,
            labels={"flo.role": "engine"},
        )  # fmt: skip
        async with self._place.yard.starts:
            holds = services.begin()
            try:
                program = await self._place.way.start(spec, "engine", inside, kind.egress, _log_output)
            except NotThere as gone:
                images.forget(shape.image)
                raise Unavailable(f"the image {shape.image} is no longer there: {gone}") from None
            box = await EngineBox.start(program, services, kind.egress, holds)
        self._programs[box] = program
        return box

    def _mark(self, box: EngineBox, order: RunOrder) -> None:
        if program := self._programs.get(box):
            program.mark(f"flo-{order.run_id}-{order.attempt}")


def _log_output(stream: str, line: bytes) -> None:
    """What an engine prints is for whoever looks for a fault of ours."""
    log.debug("container.said", stream=stream, line=line.decode(errors="replace")[:2000])
