"""Node types that other packages bring: classes registered by the entry point `flo.nodes`.

    [project.entry-points."flo.nodes"]
    shout = "my_package.shout:Shout"

Such a class has its description as `spec` and does its work in `run`, see `workers.nodes.node.Node`. It runs in the
worker in every execution mode, unconfined, so it is the operator who installs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from schemas.errors import SettingsError
from schemas.nodes.spec import NodeType

GROUP = "flo.nodes"
#: First words of names that only Flo's own node types have, now or later.
RESERVED = frozenset(
    {
        "browser",
        "code",
        "debug",
        "docker",
        "flow",
        "http",
        "hub",
        "sandbox",
        "shell",
        "time",
        "transform",
        "wait",
        "zypi",
    }
)

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomNode:
    """A node type that a package brings, and the class that does its work."""

    type: NodeType
    work: Callable[[], Any]


@cache
def installed_nodes() -> tuple[CustomNode, ...]:
    """Load the node types that are installed here. Raises SettingsError for one that can't be used."""
    return load_nodes(entry_points(group=GROUP))


def load_nodes(entries: Iterable[EntryPoint]) -> tuple[CustomNode, ...]:
    """Load and check each class, in the order of their names. Raises SettingsError for one that can't be used."""
    found: dict[str, CustomNode] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        package = entry.dist.name if entry.dist else "an unknown package"
        try:
            work = entry.load()
        except Exception as mistake:  # anyone's code, at import
            raise _unusable(entry, package, f"can't be loaded: {type(mistake).__name__}: {mistake}") from mistake
        spec = getattr(work, "spec", None)
        if not isinstance(work, type) or not isinstance(spec, NodeType) or not callable(getattr(work, "run", None)):
            raise _unusable(entry, package, "must be a class with `spec` (a NodeType) and `async def run(self, call)`")
        if not _NAME.fullmatch(spec.type):
            raise _unusable(entry, package, f'has the name "{spec.type}"; give it two words with a dot: "text.shout"')
        if spec.type.partition(".")[0] in RESERVED:
            raise _unusable(entry, package, f'has the name "{spec.type}", but names like that are for Flo\'s own')
        if spec.type in found:
            raise _unusable(entry, package, f'has the name "{spec.type}", which another package has taken')
        found[spec.type] = CustomNode(type=spec, work=work)
    return tuple(found.values())


def _unusable(entry: EntryPoint, package: str, why: str) -> SettingsError:
    return SettingsError(
        f'the node type "{entry.name}" of {package} ({entry.value}) {why}; mend or uninstall the package'
    )
