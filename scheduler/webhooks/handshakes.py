"""Questions that a sender asks once, before it sends anything: answered at once, without a run."""

from __future__ import annotations

from scheduler.event_config import Scheme
from schemas.json import JSONObject


def handshake(request: JSONObject, scheme: Scheme) -> JSONObject | None:
    """Give the answer to a handshake; None when the request is none. The sender is already believed.

    Slack, "url_verification": https://api.slack.com/events/url_verification
    """
    match scheme, request["body"]:
        case Scheme.SLACK, {"type": "url_verification", "challenge": str() as challenge}:
            return {"challenge": challenge}
    return None
