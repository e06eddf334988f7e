"""Events: the ways to start a flow."""

from __future__ import annotations

from enum import StrEnum


class EventKind(StrEnum):
    INVOKE = "invoke"
    SCHEDULE = "schedule"
    POLL = "poll"
    WEBHOOK = "webhook"
