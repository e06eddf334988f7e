"""The line to the API over which one attempt takes its order and is told of, with the run token of that attempt.

What the API does not answer is sent again until the loan is about to run out; it knows repeated words by their numbers.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import httpx
import structlog

from schemas.errors import FloError
from schemas.json import JSONObject, dumps, loads

log = structlog.get_logger()

PATH = "/api/v1/execution/"
#: Seconds for one request; a big order takes its time.
_PATIENCE = 10.0
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 3.0
#: Seconds for which an order is asked for: the API may be starting, too.
_BEGIN_WITHIN = 60.0
#: Answers after which the same word may be taken later.
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


class Refused(FloError):
    """The API gives this process no order, or takes no word of it: nothing is to be executed."""


class CutOff(FloError):
    """The API has not been heard for so long that the run may be somebody else's by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What the API says to a word of ours."""

    #: Whether the attempt still has its run.
    accepted: bool
    status: str
    #: Why the run is to be stopped, if it is.
    cancel: str | None


class Line:
    """One attempt's line."""

    def __init__(self, http: httpx.AsyncClient, api: str, token: str) -> None:
        self._http = http
        self._url = api.rstrip("/") + PATH
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._heard_at = time.monotonic()
        self._stop_s = _BEGIN_WITHIN

    async def order(self, executor: str) -> dict[str, Any]:
        """Ask for the order, for this process alone. Raises Refused or CutOff."""
        lent = await self._post("order", {"executor": executor})
        self._stop_s = float(lent["stop_s"])
        return lent

    async def tell(self, path: str, body: JSONObject) -> Word:
        """Say something. Raises Refused or CutOff."""
        said = await self._post(path, body)
        return Word(accepted=said["accepted"], status=said["status"], cancel=said["cancel"])

    def is_cut_off(self) -> bool:
        """Tell by this machine's clock whether the last accepted word is too long ago."""
        return time.monotonic() - self._heard_at > self._stop_s

    async def _post(self, path: str, body: JSONObject) -> dict[str, Any]:
        pause = _FIRST_PAUSE
        content = dumps(body)
        while True:
            sent_at = time.monotonic()
            reason = await self._try(path, content)
            if not isinstance(reason, str):
                self._heard_at = sent_at
                return reason
            if self.is_cut_off():
                raise CutOff(f"the API at {self._url} was not heard for {self._stop_s:g} s: {reason}")
            log.warning("api.waited", path=path, reason=reason)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _try(self, path: str, content: str) -> dict[str, Any] | str:
        """Give the answer, or why to try again."""
        try:
            answer = await self._http.post(
                self._url + path, content=content, headers=self._headers, timeout=min(_PATIENCE, self._stop_s)
            )
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        if answer.status_code in _LATER:
            return f"{answer.status_code}"
        said = loads(answer.content) if answer.content else {}
        if answer.is_success and isinstance(said, dict):
            return said
        detail = said.get("detail") if isinstance(said, dict) else None
        raise Refused(f"the API answered {answer.status_code} to {path}: {detail or answer.text[:500]}")
