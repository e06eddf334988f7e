"""Which object does the work of which node type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from schemas.catalog import BUILT_IN as BUILT_IN_TYPES
from schemas.custom import installed_nodes
from schemas.nodes.hub import HubShelf
from schemas.nodes.spec import NodeType
from workers.nodes.branch import Branch
from workers.nodes.browser import BrowserRender
from workers.nodes.call import FlowCall
from workers.nodes.code import Code
from workers.nodes.control import Delay, Respond
from workers.nodes.debug import DebugLog
from workers.nodes.docker import DockerRun
from workers.nodes.http import HttpRequest
from workers.nodes.hub import HubNode
from workers.nodes.inner import FlowMap, FlowRace
from workers.nodes.node import Node
from workers.nodes.python import Python
from workers.nodes.sandbox import SandboxExec, ZypiExec
from workers.nodes.shell import ShellExec
from workers.nodes.transform import JsonParse, JsonStringify, Map
from workers.nodes.wait import WaitApproval, WaitUrl, WaitWebhook


@dataclass(frozen=True, slots=True)
class Registered:
    """A node type and what does its work."""

    type: NodeType
    work: Node[Any]


Registry: TypeAlias = Mapping[str, Registered]

_WORK: dict[str, Node[Any]] = {
    "code.javascript": Code("javascript"),
    "code.typescript": Code("typescript"),
    "code.python": Python(),
    "shell.exec": ShellExec(),
    "sandbox.exec": SandboxExec(),
    "zypi.exec": ZypiExec(),
    "docker.run": DockerRun(),
    "browser.render": BrowserRender(),
    "http.request": HttpRequest(),
    "transform.json_parse": JsonParse(),
    "transform.json_stringify": JsonStringify(),
    "transform.map": Map(),
    "flow.branch": Branch(),
    "flow.map": FlowMap(),
    "flow.race": FlowRace(),
    "flow.call": FlowCall(),
    "time.delay": Delay(),
    "wait.url": WaitUrl(),
    "wait.webhook": WaitWebhook(),
    "wait.approval": WaitApproval(),
    "debug.log": DebugLog(),
    "respond": Respond(),
}

BUILT_IN: Registry = MappingProxyType(
    {node_type.type: Registered(node_type, _WORK[node_type.type]) for node_type in BUILT_IN_TYPES}
)


def custom_registry() -> Registry:
    """Load the node types of installed packages. Raises SettingsError for one that brings something else."""
    return {node.type.type: Registered(node.type, node.work()) for node in installed_nodes()}


class HubRegistry(Mapping[str, Registered]):
    """The built-in node types, those of installed packages, and the hub packages in a folder as they are now."""

    def __init__(self, folder: Path, *, built_in: Registry = BUILT_IN, custom: Registry | None = None) -> None:
        """`custom` stands for the node types of installed packages, where these are not to be loaded.

        Raises SettingsError for an installed package that brings something else than node types.
        """
        custom = custom_registry() if custom is None else custom
        self._built_in = {**custom, **built_in}
        self._shelf = HubShelf(folder)
        self._hub: dict[str, Registered] = {}

    def __getitem__(self, name: str) -> Registered:
        found = self._built_in.get(name)
        if found is not None:
            return found
        node_type, home = self._shelf.get(name), self._shelf.home(name)
        if node_type is None or home is None:
            raise KeyError(name)
        known = self._hub.get(name)
        if known is None or known.type is not node_type:  # installed anew since
            known = self._hub[name] = Registered(node_type, HubNode(name, home))
        return known

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from self._shelf.names()

    def __len__(self) -> int:
        return sum(1 for _ in self)
