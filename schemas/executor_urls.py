"""Which executors a run may be handed to over HTTP: never one that only the run itself names. Pure."""

from __future__ import annotations

from schemas.app import AppLimits
from schemas.errors import Refused
from schemas.json import JSONObject
from schemas.settings import Settings
from schemas.wording import listed

#: The key of `backend_config` that asks for an executor.
WISH = "executor_url"


def executors_for(backend_config: JSONObject, limits: AppLimits, settings: Settings) -> tuple[str, ...]:
    """Give the executors among which a run is spread.

    Raises Refused for an URL that neither the server nor the app's operator lists: a tenant who could name any would
    have workers send requests to whatever they reach.
    """
    wish = backend_config.get(WISH)
    if wish is None:
        return settings.executor_urls
    allowed = tuple(url.rstrip("/") for url in (*settings.executor_urls, *limits.executor_urls))
    if not isinstance(wish, str) or wish.rstrip("/") not in allowed:
        raise Refused(
            f"backend_config.{WISH} is {wish!r}, which is not allowed; allowed: {listed(allowed)}. Leave it "
            "out, or have the operator add it to the app's limits (executor_urls)"
        )
    return (wish.rstrip("/"),)
