"""Whether a flow, or a run of it, says what it takes of a node, where it is to execute as a Kubernetes Job."""

from __future__ import annotations

from typing import Any

from dispatch.store.flows import read_flow
from dispatch.store.triggers import Target
from scheduler.spine import Spine
from schemas.errors import Problem
from schemas.json import JSONObject
from schemas.pod import Resources, missing_resources, pod_wish
from schemas.settings import ExecutorName, Settings, SyncBackend


def lacks_resources(settings: Settings, raw: object) -> list[Problem]:
    """List what a document lacks as it is pushed, where flows execute as Jobs unless something else is asked for."""
    jobs = (settings.sync_backend is SyncBackend.KUBERNETES_JOB, settings.executor is ExecutorName.KUBERNETES_JOB)
    said: Any = raw.get("settings") if isinstance(raw, dict) else None
    if not any(jobs) or (isinstance(said, dict) and said.get("resources") is not None):
        return []
    return [missing_resources("settings.resources")]


async def check_pod(
    spine: Spine, target: Target, version: int, *, mode: str | None, backend_config: JSONObject
) -> None:
    """Raise Invalid or Refused for a run that a cluster would not get: as an executor would, but before it is accepted.

    `mode` is what the run is handed to, None what workers hand runs to that ask for nothing.
    """
    if (mode or str(spine.settings.executor)) != ExecutorName.KUBERNETES_JOB:
        return
    of_flow = None if "resources" in backend_config else await _resources_of(spine, target, version)
    pod_wish(backend_config, of_flow, target.limits.kubernetes)


async def _resources_of(spine: Spine, target: Target, version: int) -> Resources | None:
    async with spine.store.read() as connection:
        row = await read_flow(connection, target.app, target.flow, version=version)
    said: Any = row["document"].get("settings", {}).get("resources") if row is not None else None
    return None if said is None else Resources.model_validate(said)
