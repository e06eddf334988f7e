"""Which execution mode a run gets: what it asks for, else its app's, else the server's. Pure."""

from __future__ import annotations

from schemas.app import AppLimits
from schemas.errors import Refused
from schemas.json import JSONObject
from schemas.settings import ExecutionMode, Settings
from schemas.wording import listed

#: The key of `backend_config` that asks for a mode.
WISH = "execution_mode"


def mode_for(backend_config: JSONObject, limits: AppLimits, settings: Settings) -> ExecutionMode:
    """Choose the mode of a run. Raises Refused for one that is none, or weaker than the operator allows."""
    mode = wished(backend_config) or limits.execution_mode or settings.mode
    if mode.is_weaker_than(settings.weakest):
        raise Refused(
            f"execution mode {mode} is asked for, and the operator allows nothing weaker than {settings.weakest}; ask "
            "for that or a stronger one, or have the operator set FLO_WEAKEST_MODE"
        )
    return mode


def wished(backend_config: JSONObject) -> ExecutionMode | None:
    """Read the mode that a run asks for, if it does. Raises Refused for one that is none."""
    wish = backend_config.get(WISH)
    if wish is None:
        return None
    try:
        return ExecutionMode(str(wish))
    except ValueError:
        allowed = listed([str(known) for known in ExecutionMode])
        raise Refused(f"backend_config.{WISH} is {wish!r}; allowed: {allowed}") from None
