"""The node types that a flow may use here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from schemas.nodes.code import CODE_JAVASCRIPT, CODE_TYPESCRIPT
from schemas.nodes.control import RESPOND, TIME_DELAY
from schemas.nodes.debug import DEBUG_LOG
from schemas.nodes.http import HTTP_REQUEST
from schemas.nodes.spec import NodeType
from schemas.nodes.transform import JSON_PARSE, JSON_STRINGIFY
from schemas.npm import NO_PACKAGES, NpmAllow
from schemas.settings import ExecutionMode

BUILT_IN = (CODE_JAVASCRIPT, CODE_TYPESCRIPT, HTTP_REQUEST, JSON_PARSE, JSON_STRINGIFY, TIME_DELAY, DEBUG_LOG, RESPOND)


class Catalog(Mapping[str, NodeType]):
    """Node types by name, and what the operator allows of them: by mode, and which npm packages."""

    def __init__(self, types: Iterable[NodeType], *, mode: ExecutionMode, npm: NpmAllow = NO_PACKAGES) -> None:
        self._types = {node_type.type: node_type for node_type in types}
        self.mode = mode
        self.npm = npm

    def __getitem__(self, name: str) -> NodeType:
        return self._types[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def list(self) -> tuple[NodeType, ...]:
        """List the types, by name."""
        return tuple(self._types[name] for name in sorted(self._types))


def load_catalog(mode: ExecutionMode = ExecutionMode.SANDBOX_CODE_ONLY, *, npm: NpmAllow = NO_PACKAGES) -> Catalog:
    """Gather the built-in node types."""
    return Catalog(BUILT_IN, mode=mode, npm=npm)
