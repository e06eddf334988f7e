"""Makes one Job of each attempt, and lets go of it: no worker waits.

The loan is written first and the Job created second, both by names that are the same each time. So whatever dies in
between, `keeper.py` finds a loan without its Job, or a Job without a loan, and knows what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from schemas.errors import FloError, Invalid, Refused, Unavailable
from schemas.json import JSONObject
from schemas.modes import mode_for
from schemas.outcome import Away, ErrorKind, Failed, Outcome, RunError
from schemas.pod import PodWish, pod_wish
from schemas.settings import ExecutorName, Settings
from workers.app_limits import LimitsOfApps
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.executors.kubernetes.cluster import Cluster
from workers.executors.kubernetes.errors import ClusterAway, ClusterTrouble, Rejected
from workers.executors.kubernetes.manifest import job_manifest, secret_manifest
from workers.executors.kubernetes.naming import job_name
from workers.executors.kubernetes.terms import PodTerms, read_terms
from workers.executors.kubernetes.turn import Turn
from workers.executors.loan import Loan, LoanBook

log = structlog.get_logger()

#: How long a Job is tried to be created; then the run is put off, and another worker may have more luck.
_PATIENCE = timedelta(seconds=20)
#: How much longer than a pod may take to begin its loan lasts: the keeper, who knows why it did not, speaks first.
_MARGIN = timedelta(seconds=60)
_AGAIN, _AGAIN_MOST = 0.25, 4.0
#: How long it is tried to make a Job undone. If that fails, its attempt has the run no more: the API gives it no order.
_UNDONE_WITHIN = timedelta(seconds=30)


class KubernetesExecutor:
    """The cluster that the operator names. `turn` keeps what is lent, in one worker at a time."""

    def __init__(
        self, settings: Settings, *, cluster: Cluster, limits: LimitsOfApps, book: LoanBook, turn: Turn | None = None
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._limits = limits
        self._book = book
        self._turn = turn

    def start(self) -> None:
        """Look after what is lent. Raises Unavailable or SettingsError when Jobs could not be made here."""
        read_terms(self._settings)
        if self._turn is not None:
            self._turn.start()

    async def run(self, order: RunOrder, events: EventSink) -> Outcome | Away:
        terms = read_terms(self._settings)
        limits = await self._limits.read(order.app)
        try:
            mode_for(order.backend_config, limits, self._settings)  # a pod is stronger than any that it may name
            of_flow = order.document.settings.resources
            wish = pod_wish(order.backend_config, of_flow, limits.kubernetes, node=order.node)
        except (Invalid, Refused) as mistake:
            return _refusal(mistake)
        return await self._lend(order, wish, terms, events)

    async def aclose(self) -> None:
        if self._turn is not None:
            await self._turn.aclose()
        await self._cluster.aclose()

    async def _lend(self, order: RunOrder, wish: PodWish, terms: PodTerms, events: EventSink) -> Failed | Away:
        name, begins_within = job_name(order), terms.starts_within + _MARGIN
        token = await self._book.token(order, begins_within=begins_within)
        until = datetime.now(UTC) + begins_within
        await self._book.lend(order, events, Loan(backend=ExecutorName.KUBERNETES_JOB, handle=name, until=until))
        try:
            await self._create(job_manifest(order, wish, terms), token)
        except Rejected as why:
            await self._undo(name)
            message = f"the cluster takes no Job for the run: {why}; k8s/ has the rights and the room that Flo needs"
            return Failed(error=RunError(kind=ErrorKind.INTERNAL, message=message))
        except BaseException:
            await self._undo(name)
            raise
        log.debug("job.created", run_id=order.run_id, attempt=order.attempt, job=name)
        return Away()

    async def _create(self, job: JSONObject, token: str) -> None:
        """Create the Job and its Secret, then let it begin: it never waits for a Secret that nobody will create.

        Raises Unavailable or Rejected.
        """
        metadata: Any = job["metadata"]
        pause = _AGAIN
        why = "it took too long"
        try:
            async with asyncio.timeout(_PATIENCE.total_seconds()):
                while True:
                    try:
                        uid = await self._cluster.create_job(job)
                        await self._cluster.create_secret(secret_manifest(job, token, owner=uid))
                        await self._cluster.start_job(metadata["name"])
                    except ClusterAway as trouble:
                        why = str(trouble)
                        await asyncio.sleep(pause)
                        pause = min(pause * 2, _AGAIN_MOST)
                    else:
                        return
        except TimeoutError:
            raise Unavailable(f"the run's Job could not be created: {why}") from None

    async def _undo(self, name: str) -> None:
        """Confirm that no Job is left, also when whoever waits is cancelled again."""
        undoing = asyncio.ensure_future(self._delete(name))
        while not undoing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([undoing])

    async def _delete(self, name: str) -> None:
        try:
            async with asyncio.timeout(_UNDONE_WITHIN.total_seconds()):
                while True:
                    if not await self._cluster.delete_job(name):
                        return
                    await asyncio.sleep(_AGAIN)
        except (ClusterTrouble, FloError, TimeoutError) as trouble:
            log.warning("job.left", job=name, error=str(trouble) or "it took too long")


def _refusal(mistake: Invalid | Refused) -> Failed:
    kind = ErrorKind.FORBIDDEN if isinstance(mistake, Refused) else ErrorKind.INVALID_INPUT
    return Failed(error=RunError(kind=kind, message=str(mistake)))
