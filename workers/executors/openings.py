"""How the executor of each mode is opened, with what it is made of, and closed again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial

import httpx
import structlog

from schemas.catalog import Catalog, load_catalog
from schemas.npm import ANY_PACKAGE, NpmAllow
from schemas.settings import ExecutionMode, Settings
from workers.app_limits import LimitsOfApps, NoLimits
from workers.engine.plugins import load_hooks
from workers.engine.registry import HubRegistry, custom_registry
from workers.engine.shared import Shared
from workers.engine.solo import Solo
from workers.executors.base import LocalExecutor, RunOrder
from workers.executors.boxed.desk import Services
from workers.executors.boxed.making import make_engine_box, open_engine_boxes
from workers.executors.boxed.operators import Operators
from workers.executors.boxed.per_app import BoxPerApp
from workers.executors.boxed.per_run import BoxPerRun
from workers.executors.boxed.supply import BoxSupply
from workers.executors.boxed.terms import Terms
from workers.executors.docker.executor import DockerExecutor
from workers.executors.inline import InlineExecutor
from workers.executors.solo.open import SoloOpenings
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeTools
from workers.preparation.bundler import Platform
from workers.preparation.preparer import CachingPreparer
from workers.runner.inside import StartedLater, StartedPlain
from workers.sandboxes.base import CodeSandbox
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.open import open_box
from workers.sandboxes.box.plain import open_plain
from workers.sandboxes.box.proxy import Network, Proxy
from workers.sandboxes.commands import CommandSandbox, NoBox
from workers.sandboxes.docker.containers import DockerContainers
from workers.sandboxes.docker.place import DockerPlace, unleased
from workers.sandboxes.plain_node import PlainNodePool
from workers.sandboxes.v8.open import open_v8
from workers.tenure import Begin, without_end

log = structlog.get_logger()

#: Boxes with an engine that wait for a run of their own, and for an app.
_READY_FOR_RUNS, _READY_FOR_APPS = 2, 1
NO_LIMITS = NoLimits()


class Openings:
    """The modes of one worker. What a mode needs is opened with it, and closed by `aclose`, the last first."""

    def __init__(
        self,
        settings: Settings,
        *,
        begin: Begin = without_end,
        shared: Shared | None = None,
        owner: str = "",
        lease_left: Callable[[], timedelta] = unleased,
        limits: LimitsOfApps = NO_LIMITS,
        standalone: bool = False,
    ) -> None:
        """`begin` begins what may act while the worker has its lease, for `lease_left` at least; `owner` is its id.

        `shared` is what its runs share, else its memory. `standalone` says that there is no server, but one user.
        """
        self._settings = settings
        self._begin = begin
        #: What boxes and containers may reach of the world.
        self._network = Network.outside(begin, allow_private=settings.allow_private_network)
        self._closing: list[Callable[[], Awaitable[None]]] = []
        self._engine_boxes: NamespaceBox | None = None
        self._one_at_a_time = asyncio.Lock()
        self._hooks = load_hooks()
        self._shared = shared or Shared()
        #: Asks nothing of Docker before a run does.
        self.containers = DockerPlace.of(settings, owner=owner, lease_left=lease_left, network=self._network)
        self._closing.append(self.containers.aclose)
        self._http_places = asyncio.Semaphore(settings.max_inline_http)
        self._limits = limits
        self.solo = SoloOpenings(
            settings, boxes=self._boxes_with_engine, services=self._solo_services, docker=self._solo_in_containers,
            standalone=standalone,
        )  # fmt: skip

    def all(self) -> Mapping[ExecutionMode, Callable[[], Awaitable[LocalExecutor]]]:
        """Give how each mode's executor is opened; raises Unavailable with the reason where it does not work."""
        return {
            ExecutionMode.UNSANDBOXED: self._unsandboxed,
            ExecutionMode.SANDBOX_CODE_ONLY: self._code_only,
            ExecutionMode.SANDBOX_PROCESS: self._per_run,
            ExecutionMode.SANDBOX_CODE_AND_PROCESS: self._per_app,
        }

    async def in_this_box(self) -> LocalExecutor:
        """Give an executor for a process that is in the box of its only run already: a pod, a container.

        What the run does not need is never started; what is lost in there is the run's own doing.
        """
        code, here = StartedLater(PlainNodePool(hosts=1)), StartedPlain(None)
        self._closing += [code.aclose, here.aclose]
        return self._inline(code, here, self._preparer("node"), self.solo.for_mode(ExecutionMode.UNSANDBOXED))

    def docker(self, limits: LimitsOfApps, catalog: Catalog) -> DockerExecutor:
        """Give the executor whose runs have containers; what those need is opened with the first."""

        @cache
        def services() -> Services:
            solo = self.solo.for_mode(ExecutionMode.SANDBOX_PROCESS)
            return self._services(self._preparer("node"), NoBox(), solo)

        self._limits = limits
        return DockerExecutor(self.containers, limits=limits, catalog=catalog, services=services, terms=self._terms())

    async def aclose(self) -> None:
        await self.solo.aclose()
        while self._closing:
            await self._closing.pop()()

    async def _unsandboxed(self) -> LocalExecutor:
        log.warning(
            "mode.unsandboxed",
            danger="code of flows runs with this worker's own rights: it can read its keys and end it",
            fix="never where anyone else may push flows; unset FLO_EXECUTION_MODE for a sandbox",
        )
        return await self._plain()

    async def _plain(self) -> LocalExecutor:
        code = PlainNodePool(hosts=self._settings.v8_hosts)
        await code.start()
        self._closing.append(code.aclose)
        box = await open_plain()
        self._closing.append(box.aclose)
        return self._inline(code, box, self._preparer("node"), self.solo.for_mode(ExecutionMode.UNSANDBOXED))

    async def _code_only(self) -> LocalExecutor:
        code = await open_v8(hosts=self._settings.v8_hosts)
        self._closing.append(code.aclose)
        solo = self.solo.for_mode(ExecutionMode.SANDBOX_CODE_ONLY)
        return self._inline(code, NoBox(), self._preparer("v8"), solo)

    async def _per_run(self) -> LocalExecutor:
        """Everything is inside: the code of a run may import any package, and reach whatever its box has."""
        boxes = await self._boxes_with_engine()
        mode = ExecutionMode.SANDBOX_PROCESS
        services = self._services(self._preparer("node"), NoBox(), self.solo.for_mode(mode))
        return BoxPerRun(self._supply(boxes, mode, services, _READY_FOR_RUNS), self._terms())

    async def _per_app(self) -> LocalExecutor:
        boxes = await self._boxes_with_engine()
        commands = await open_box()
        commands.open_proxy = partial(Proxy, network=self._network)
        self._closing.append(commands.aclose)
        mode = ExecutionMode.SANDBOX_CODE_AND_PROCESS
        services = self._services(self._preparer("v8"), commands, self.solo.for_mode(mode))
        return BoxPerApp(self._supply(boxes, mode, services, _READY_FOR_APPS), self._terms())

    def _inline(self, code: CodeSandbox, box: CommandSandbox, preparer: CachingPreparer, solo: Solo) -> InlineExecutor:
        http = self._http()
        cap = timedelta(seconds=self._settings.inline_http_max_duration)

        def tools_for(order: RunOrder) -> NodeTools:
            return NodeTools(
                code=code, http=http, box=box, preparer=preparer, app=order.app, run_id=order.run_id,
                attempt=order.attempt, inline_http_cap=cap, egress=order.egress,
                public_url=self._settings.public_url.rstrip("/"), solo=solo, http_places=self._http_places,
                containers=DockerContainers(self.containers),
            )  # fmt: skip

        return InlineExecutor(
            tools_for, registry=HubRegistry(self._settings.hub), hooks=self._hooks, shared=self._shared
        )

    def _services(self, preparer: CachingPreparer, commands: CommandSandbox, solo: Solo | None) -> Services:
        custom = custom_registry()
        containers = DockerContainers(self.containers)
        services = Services(
            preparer=preparer, commands=commands, containers=containers, shared=self._shared, solo=solo,
            begin=self._begin,
        )  # fmt: skip
        if not custom and not self._hooks:
            return services
        operators = Operators(http=self._http(), preparer=preparer, commands=commands, nodes=custom, hooks=self._hooks)
        return replace(services, operators=operators)

    def _solo_services(self, platform: Platform) -> Services:
        """What stands inside a node that runs alone is alone with it."""
        return self._services(self._preparer(platform), NoBox(), None)

    def _solo_in_containers(self, services: Services, terms: Terms) -> LocalExecutor:
        catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS, npm=NpmAllow.parse("*"), hub=self._settings.hub)
        # What a node may ask for is checked before, and not the same as what a run may.
        most = {"box_memory_mb": self._settings.solo_memory_mb}
        place = replace(self.containers, settings=self._settings.model_copy(update=most))
        return DockerExecutor(place, limits=self._limits, catalog=catalog, services=lambda: services, terms=terms)

    def _http(self) -> httpx.AsyncClient:
        http = open_client(allow_private_network=self._settings.allow_private_network, begin=self._begin)
        self._closing.append(http.aclose)
        return http

    def _supply(self, boxes: NamespaceBox, mode: ExecutionMode, services: Services, ready: int) -> BoxSupply:
        return BoxSupply(partial(make_engine_box, boxes, mode, self._terms(), services), ready=ready)

    def _terms(self) -> Terms:
        cap = timedelta(seconds=self._settings.inline_http_max_duration)
        return Terms(
            memory_mb=self._settings.box_memory_mb,
            inline_http_cap=cap,
            hooked=bool(self._hooks),
            public_url=self._settings.public_url.rstrip("/"),
            http_places=self._settings.max_inline_http,
        )

    def _preparer(self, platform: Platform) -> CachingPreparer:
        """Prepare code for isolates, which get the packages that the operator allows, or for Node, which gets any."""
        allow = ANY_PACKAGE if platform == "node" else self._settings.npm
        preparer = CachingPreparer.open(self._settings, platform=platform, allow=allow)
        self._closing.append(preparer.aclose)
        return preparer

    async def _boxes_with_engine(self) -> NamespaceBox:
        async with self._one_at_a_time:
            if self._engine_boxes is None:
                self._engine_boxes = await open_engine_boxes(self._settings, self._network)
                self._closing.append(self._engine_boxes.aclose)
            return self._engine_boxes
