"""The node types that a flow may use here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from schemas.custom import installed_nodes
from schemas.flow import FlowDocument
from schemas.nodes.branch import FLOW_BRANCH
from schemas.nodes.browser import BROWSER_RENDER
from schemas.nodes.call import FLOW_CALL
from schemas.nodes.code import CODE_JAVASCRIPT, CODE_TYPESCRIPT
from schemas.nodes.control import RESPOND, TIME_DELAY
from schemas.nodes.debug import DEBUG_LOG
from schemas.nodes.docker import DOCKER_RUN
from schemas.nodes.http import HTTP_REQUEST
from schemas.nodes.hub import HubShelf
from schemas.nodes.inner import FLOW_MAP, FLOW_RACE
from schemas.nodes.python import CODE_PYTHON
from schemas.nodes.sandbox import SANDBOX_EXEC
from schemas.nodes.shell import SHELL_EXEC
from schemas.nodes.spec import NodeConfig, NodeType, SoloBounds
from schemas.nodes.transform import JSON_PARSE, JSON_STRINGIFY, TRANSFORM_MAP
from schemas.nodes.wait import WAIT_APPROVAL, WAIT_URL, WAIT_WEBHOOK
from schemas.nodes.zypi import ZYPI_EXEC
from schemas.npm import ANY_PACKAGE, NO_PACKAGES, NpmAllow
from schemas.settings import ExecutionMode

BUILT_IN = (
    CODE_JAVASCRIPT, CODE_TYPESCRIPT, CODE_PYTHON, SHELL_EXEC, SANDBOX_EXEC, ZYPI_EXEC, DOCKER_RUN, HTTP_REQUEST,
    JSON_PARSE, JSON_STRINGIFY, TRANSFORM_MAP, FLOW_BRANCH, FLOW_MAP, FLOW_RACE, FLOW_CALL, TIME_DELAY, WAIT_URL,
    WAIT_WEBHOOK, WAIT_APPROVAL, DEBUG_LOG, RESPOND, BROWSER_RENDER,
)  # fmt: skip
_ANY_PACKAGE_MODES = frozenset({ExecutionMode.UNSANDBOXED, ExecutionMode.SANDBOX_PROCESS})
#: A place where no hub package ever is.
NO_HUB = HubShelf(Path("/dev/null"))
UNBOUNDED = SoloBounds()


class Catalog(Mapping[str, NodeType]):
    """Node types by name, and what the operator allows of them: by mode, and which npm packages."""

    def __init__(
        self,
        types: Iterable[NodeType],
        *,
        mode: ExecutionMode,
        npm: NpmAllow = NO_PACKAGES,
        hub: HubShelf = NO_HUB,
        solo: SoloBounds = UNBOUNDED,
    ) -> None:
        self._types = {node_type.type: node_type for node_type in types}
        self.mode = mode
        #: What the operator lets isolates have.
        self._npm = npm
        self.hub = hub
        #: What nodes may ask for that run alone.
        self.solo = solo

    def __getitem__(self, name: str) -> NodeType:
        found = self._types.get(name) or self.hub.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return chain(self._types, self.hub.names())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def npm(self) -> NpmAllow:
        """The packages that code may import: any, where it runs in Node and the wall is elsewhere or nowhere."""
        return ANY_PACKAGE if self.mode in _ANY_PACKAGE_MODES else self._npm

    def used_by(self, document: FlowDocument) -> Iterator[tuple[str, NodeType]]:
        """Name each node of a valid document with its type; those of flows inside a node under that node's id."""
        for node in document.nodes:
            node_type = self.get(node.node_type)
            if node_type is None:
                continue
            yield node.id, node_type
            if node_type.config.inner_flows is not NodeConfig.inner_flows:
                for inner in node_type.config.model_validate(node.config).inner_flows().values():
                    yield from ((node.id, used) for _, used in self.used_by(inner))

    def in_mode(self, mode: ExecutionMode) -> Catalog:
        """Give the same node types as another mode allows them."""
        return Catalog(self._types.values(), mode=mode, npm=self._npm, hub=self.hub, solo=self.solo)

    def list(self) -> tuple[NodeType, ...]:
        """List the types, by name."""
        return tuple(self[name] for name in sorted(self))


def load_catalog(
    mode: ExecutionMode = ExecutionMode.SANDBOX_CODE_ONLY,
    *,
    npm: NpmAllow = NO_PACKAGES,
    hub: Path | None = None,
    solo: SoloBounds = UNBOUNDED,
) -> Catalog:
    """Gather the built-in node types, those of installed packages, and those in the folder `hub`."""
    types = (*BUILT_IN, *(node.type for node in installed_nodes()))
    return Catalog(types, mode=mode, npm=npm, hub=HubShelf(hub) if hub is not None else NO_HUB, solo=solo)
