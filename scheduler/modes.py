"""Which execution mode holds here, as far as an API can know it: the operator's word, else what the workers say."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select

from dispatch.leases import workers
from dispatch.store.limits import read_limits
from scheduler.spine import Spine
from schemas.app import AppLimits
from schemas.executor_urls import executors_for
from schemas.json import JSONObject
from schemas.lambda_functions import invocation_for
from schemas.modes import mode_for, wished
from schemas.settings import ExecutionMode, ExecutorName


async def mode_of_app(spine: Spine, app: str) -> ExecutionMode:
    """Give the mode that the runs of an app have unless they ask for another: its flows are checked by it."""
    async with spine.store.read() as connection:
        limits = await read_limits(connection, app) or AppLimits()
    return limits.execution_mode or _mode_of_boxes(spine) or await mode_of_server(spine)


def _mode_of_boxes(spine: Spine) -> ExecutionMode | None:
    """Give the mode of an executor whose every run is in a box of its own, whatever its workers could do themselves."""
    boxes = (ExecutorName.DOCKER, ExecutorName.KUBERNETES_JOB)
    return ExecutionMode.SANDBOX_PROCESS if spine.settings.executor in boxes else None


async def mode_of_server(spine: Spine) -> ExecutionMode:
    """Give the operator's mode; where it is left open, what live workers have.

    Of workers that differ, one without a place for commands counts: it may be the one that gets the run. Before there
    is any worker nothing is known, and nothing refused: the worker that takes the run has the last word.
    """
    if spine.settings.execution_mode is not None:
        return spine.settings.execution_mode
    alive = datetime.now(UTC) - spine.settings.lease
    query = select(workers.c.execution_mode).where(workers.c.stopped_at.is_(None), workers.c.heartbeat_at >= alive)
    async with spine.store.read() as connection:
        said = {ExecutionMode(mode) for mode in (await connection.execute(query.distinct())).scalars() if mode}
    if ExecutionMode.SANDBOX_CODE_ONLY in said:
        return ExecutionMode.SANDBOX_CODE_ONLY
    return min(said, key=list(ExecutionMode).index, default=ExecutionMode.SANDBOX_CODE_AND_PROCESS)


async def check_wish(spine: Spine, limits: AppLimits, backend_config: JSONObject) -> None:
    """Raise Refused for a run that asks for a mode or an executor that does not exist, or is not allowed."""
    executors_for(backend_config, limits, spine.settings)
    invocation_for(backend_config, limits, spine.settings)
    if wished(backend_config) is not None:
        mode_for(backend_config, limits, spine.settings.in_mode(await mode_of_server(spine)))
