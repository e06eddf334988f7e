"""When a node starts, by the fates of the nodes that feed it: the trigger rules of Airflow. Pure.

Each rule decides as soon as nothing that may still come could change its mind. So a node's fate does not depend on
the order in which others end.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, assert_never

from schemas.flow import TriggerRule

#: How a node ended. One that never started because of its rule, or of a branch that was not taken, is skipped.
Fate: TypeAlias = Literal["succeeded", "failed", "skipped"]
Decision: TypeAlias = Literal["start", "skip", "wait"]


def decide(rule: TriggerRule, *, waiting: int, succeeded: int, failed: int, skipped: int) -> Decision:
    """Judge a node by how many of those that feed it have which fate, and how many have none yet."""
    match rule:
        case "all_success":
            return "skip" if failed or skipped else _when_all_are_over(waiting)
        case "all_failed":
            return "skip" if succeeded or skipped else _when_all_are_over(waiting)
        case "none_failed":
            return "skip" if failed else _when_all_are_over(waiting)
        case "all_done":
            return _when_all_are_over(waiting)
        case "one_success":
            return "start" if succeeded else _as_long_as_any(waiting)
        case "one_failed":
            return "start" if failed else _as_long_as_any(waiting)
        case _:
            assert_never(rule)


def _when_all_are_over(waiting: int) -> Decision:
    return "wait" if waiting else "start"


def _as_long_as_any(waiting: int) -> Decision:
    return "wait" if waiting else "skip"
