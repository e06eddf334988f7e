"""Which Lambda function a run is handed to, and how: never one that only the run itself names. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from schemas.app import AppLimits
from schemas.errors import Refused
from schemas.json import JSONObject
from schemas.settings import Settings
from schemas.wording import listed

#: The keys of `backend_config` that ask for a function, and for a way to invoke it.
FUNCTION, INVOCATION = "function", "invocation"


class InvocationType(StrEnum):
    """How a function is invoked, in the words of Lambda's API."""

    #: The worker waits for the answer.
    REQUEST_RESPONSE = "RequestResponse"
    #: Lambda queues the event; the function calls back.
    EVENT = "Event"


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a run is handed to."""

    #: A name, an ARN or the URL of a function; None where the server has none.
    function: str | None
    type: InvocationType


def invocation_for(backend_config: JSONObject, limits: AppLimits, settings: Settings) -> Invocation:
    """Choose the function of a run.

    Raises Refused for one that neither the server nor the app's operator lists: workers invoke with their own rights.
    """
    wish = backend_config.get(FUNCTION)
    allowed = tuple(filter(None, (settings.lambda_function, *limits.lambda_functions)))
    if wish is not None and wish not in allowed:
        raise Refused(
            f"backend_config.{FUNCTION} is {wish!r}, which is not allowed; allowed: {listed(allowed)}. Leave it out, "
            "or have the operator add it to the app's limits (lambda_functions)"
        )
    way = backend_config.get(INVOCATION, InvocationType.REQUEST_RESPONSE)
    if way not in tuple(InvocationType):
        raise Refused(f"backend_config.{INVOCATION} is {way!r}; allowed: {listed(tuple(InvocationType))}")
    return Invocation(settings.lambda_function if wish is None else str(wish), InvocationType(str(way)))
