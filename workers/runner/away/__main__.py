"""`python -P -m workers.runner.away`: execute one attempt, in a container that is the box of its run.

FLO_URL is the API; the run token is in the file that FLO_RUN_TOKEN_FILE names, or in FLO_RUN_TOKEN. FLO_EXECUTOR_ID
names this process (a pod's uid); without it, a random name. Exit codes: 0 the end was told, whatever it was; 1 it could
not be told; 2 a wrong setting; 3 there was nothing to execute.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from dataclasses import replace
from pathlib import Path

import structlog
import uvloop

from dispatch.telemetry.logs import configure_logs
from schemas.app import AppLimits
from schemas.catalog import load_catalog
from schemas.errors import FloError, SettingsError, Unavailable
from schemas.npm import NpmAllow
from schemas.outcome import ErrorKind, Failed, Outcome, RunError
from schemas.settings import ExecutionMode, Settings, load_settings
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.executors.modes import refusals
from workers.executors.openings import Openings
from workers.runner.away.attempt import execute_away
from workers.runner.away.line import CutOff, Refused
from workers.sandboxes.box.egress import egress_to
from workers.sandboxes.box.inside import kernel

log = structlog.get_logger()

TOLD, UNTOLD, USERS_MISTAKE, NOTHING_TO_DO = 0, 1, 2, 3


def main() -> int:
    # The run's code may be another process of the same user: it must not read the token in this one (ptrace(2)).
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    try:
        token = _token()
        settings = load_settings()
        configure_logs(settings)
        if settings.api_url is None:
            raise SettingsError("FLO_URL is not set; have it name the API, where orders are taken")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(_execute(settings, settings.api_url, token))
    except Refused as refusal:
        log.info("run.refused", reason=str(refusal))
        return NOTHING_TO_DO
    except CutOff as why:
        log.error("api.away", reason=str(why))
        return UNTOLD
    except FloError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return USERS_MISTAKE
    return UNTOLD if outcome is None else TOLD


def _token() -> str:
    """Read the token, and take it out of the environment, which what the run starts would inherit."""
    file, given = os.environ.pop("FLO_RUN_TOKEN_FILE", None), os.environ.pop("FLO_RUN_TOKEN", None)
    if file is not None:
        try:
            given = Path(file).read_text()
        except OSError as error:
            raise SettingsError(f"FLO_RUN_TOKEN_FILE names {file}, which can't be read: {error.strerror}") from error
    if not given:
        raise SettingsError("neither FLO_RUN_TOKEN_FILE nor FLO_RUN_TOKEN is set; whoever starts this gives the token")
    return given.strip()


async def _execute(settings: Settings, api: str, token: str) -> Outcome | None:
    catalog = load_catalog(ExecutionMode.SANDBOX_PROCESS, npm=NpmAllow.parse("*"), hub=settings.hub)
    openings = Openings(settings)

    async def execute(order: RunOrder, limits: AppLimits, events: EventSink) -> Outcome:
        for error in refusals(order.document, catalog, ExecutionMode.SANDBOX_PROCESS):
            return Failed(error=error)
        egress = egress_to(limits.egress if limits.egress is not None else settings.reach)
        try:
            executor = await openings.in_this_box()
        except Unavailable as reason:
            return Failed(
                error=RunError(kind=ErrorKind.INTERNAL, message=f"the runner's image lacks something: {reason}")
            )
        return await executor.run(replace(order, egress=egress), events)

    task = asyncio.ensure_future(execute_away(api, token, _name(), execute))
    # Whoever ends the container gives a moment: what is left of the run is killed in good order, not told as its end.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None
    finally:
        await openings.aclose()


def _name() -> str:
    return os.environ.pop("FLO_EXECUTOR_ID", None) or f"exe_{secrets.token_hex(8)}"


if __name__ == "__main__":
    sys.exit(main())
