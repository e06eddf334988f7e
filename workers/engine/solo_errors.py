"""Errors of nodes that run alone, worded for who wrote the node: its run, and that run's limits, are none of his."""

from __future__ import annotations

from datetime import timedelta

from schemas.flow import MAX_EXECUTION_TIME_MS, Node
from schemas.json import JSONObject, JSONValue
from schemas.nodes.spec import SoloBounds
from schemas.outcome import ErrorKind, RunError
from workers.nodes.node import too_long

_MS = timedelta(milliseconds=1)
#: What is raised for a run that takes too long.
_TIME_LIMIT = "settings.max_execution_time_ms"
#: What is raised for a run that needs more memory than its box has, or its pod.
_MEMORY_LIMITS = ("FLO_BOX_MEMORY_MB", "settings.resources.limits.memory")


def limit_of(node: Node) -> timedelta | None:
    """Tell how long the node may take, if it says so."""
    limit: JSONValue = node.resources.timeout_ms if node.resources is not None else None
    match node.config:
        case {"timeout_ms": int() | float() as given} if limit is None:
            limit = given
        case {"timeout": int() | float() as given} if limit is None:
            limit = given * 1000
    if not isinstance(limit, int | float):
        return None
    return timedelta(milliseconds=min(limit, MAX_EXECUTION_TIME_MS))  # a config is not checked before it is read


def memory_of(node: Node, bounds: SoloBounds) -> int:
    """Tell how much memory the node's sandbox has, in MB."""
    return (node.resources and node.resources.memory_mb) or bounds.memory_mb


def as_nodes(error: RunError, node: Node, bounds: SoloBounds) -> RunError:
    """Word an error for whoever wrote the node: its run, and that run's limits, are none of his.

    The sandbox may have been made to say anything, so its numbers are not taken from it.
    """
    details = error.details or {}
    limit = limit_of(node)
    by_resources = node.resources is not None and node.resources.timeout_ms is not None
    match error.kind, details.get("raise_with"):
        case ErrorKind.MEMORY_EXCEEDED, str(key) if key in _MEMORY_LIMITS:
            most = memory_of(node, bounds)
            message = (
                f"the node's own sandbox used more memory than its limit of {most:,} MB, engine and code together; use "
                "less, or raise resources.memory_mb"
            )
            told: JSONObject = {**details, "limit": most, "raise_with": "resources.memory_mb"}
            return RunError(kind=error.kind, message=message, details=told)
        case ErrorKind.TIMED_OUT, str(key) if limit and (key == _TIME_LIMIT or (by_resources and "timeout" in key)):
            key = "resources.timeout_ms" if by_resources else "timeout_ms in its config"
            return too_long(limit, raise_with=key).error.model_copy(
                update={"details": {**details, "limit_ms": limit // _MS, "raise_with": key}}
            )
        case _:
            return error.model_copy(update={"node_id": None})
