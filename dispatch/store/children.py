"""Makes the runs that a parked run waits for: those of flows that it calls, and those of its nodes in pods."""

from __future__ import annotations

from typing import assert_never

from sqlalchemy import Connection, RowMapping, select

from dispatch.store.flows import flow_versions, flows
from dispatch.store.gates import apps
from dispatch.store.runs import NewRun
from schemas.app import AppLimits
from schemas.outcome import ChildCall, ChildNode, ErrorKind, RunError
from schemas.run import Lane
from schemas.settings import ExecutorName

#: Runs that may start one another in a row.
DEEPEST = 10


def child_of(connection: Connection, run: RowMapping, node: str, child: ChildCall | ChildNode) -> NewRun | RunError:
    """Make the run that `node` of `run` starts; or say why there is none, which the node hears like the run's end."""
    if run["depth"] >= DEEPEST:
        next_ = f'"{child.flow}"' if isinstance(child, ChildCall) else f'node "{node}" in its pod'
        message = f"{DEEPEST} runs have called one another in a row to get here, and {next_} would be one more; "
        return RunError(kind=ErrorKind.INVALID_INPUT, message=message + "look for a flow that calls itself")
    match child:
        case ChildCall(flow=flow, payload=payload):
            version, mode, only = _version_of(connection, run["app"], child), run["mode"], None
        case ChildNode(given=payload):
            flow, mode, only = run["flow"], str(ExecutorName.KUBERNETES_JOB), node
            version = _no_pods(connection, run["app"]) or run["version"]
        case _:
            assert_never(child)
    if isinstance(version, RunError):
        return version
    return NewRun(
        flow=flow,
        version=version,
        payload=payload,
        mode=mode,
        node=only,
        app=run["app"],
        event=None,
        lane=Lane.FLOW,
        max_attempts=run["max_attempts"] - run["attempts_before"],
        priority=run["priority"],
        backend_config=run["backend_config"],
        worker_group=run["worker_group"],
        parent_run=run["id"],
        depth=run["depth"] + 1,
    )


def _version_of(connection: Connection, app: str, call: ChildCall) -> int | RunError:
    """Find the version of the flow that is called; it may be none, or retired."""
    known = connection.execute(
        select(flows.c.latest_version, flows.c.retired_at).where(flows.c.app == app, flows.c.name == call.flow)
    ).one_or_none()
    if known is None or known.retired_at is not None:
        message = f'app {app} has no flow "{call.flow}"' + (" any more: it was retired" if known else "")
        return RunError(kind=ErrorKind.INVALID_INPUT, message=f"{message}; push it first")
    newest: int = known.latest_version
    version = newest if call.version is None else call.version
    is_there = connection.execute(
        select(flow_versions.c.version).where(
            flow_versions.c.app == app, flow_versions.c.flow == call.flow, flow_versions.c.version == version
        )
    ).first()
    if is_there is None:
        message = f'flow "{call.flow}" has no version {version}; the newest is {newest}'
        return RunError(kind=ErrorKind.INVALID_INPUT, message=message)
    return version


def _no_pods(connection: Connection, app: str) -> RunError | None:
    """Say why no node of an app may have a pod: its operator's list of modes holds for nodes, too."""
    limits = AppLimits.model_validate(connection.scalar(select(apps.c.limits).where(apps.c.name == app)) or {})
    if limits.modes is None or ExecutorName.KUBERNETES_JOB in limits.modes:
        return None
    message = f'app {app} may have no pods for its nodes: the operator\'s list of its modes has no "kubernetes_job"; '
    fix = 'set execution_mode: "sandbox", or have the list extended'
    return RunError(kind=ErrorKind.FORBIDDEN, message=message + fix)
