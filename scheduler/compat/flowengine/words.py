"""Run events in FlowEngine's words."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from scheduler.compat.flowengine.values import execution_id, typed_output, typed_outputs
from scheduler.news import Told
from schemas.json import JSONObject, dumps
from schemas.run import EventType, RunStatus

#: Runs of which a feed remembers how they began.
_REMEMBERED = 10_000
#: Node types whose log lines are what a command wrote.
_COMMANDS = frozenset({"shell.exec", "sandbox.exec", "zypi.exec"})


@dataclass(slots=True)
class _Known:
    started: datetime | None = None
    types: dict[str, str] = field(default_factory=dict)


class Words:
    """One feed's translation. It remembers of each run what FlowEngine says later, and Flo says once."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, _Known] = OrderedDict()

    def write(self, told: Told) -> str | None:
        """Word an event; None for one that FlowEngine has no word for."""
        event = self._word(told)
        if event is None:
            return None
        said = told.event.happening
        time = said.time.isoformat().replace("+00:00", "Z")
        whose = {"execution_id": execution_id(told.event.run_id), "timestamp": time}
        return dumps({**event, **whose, **({} if said.node_id is None else {"node_id": said.node_id})})

    def _word(self, told: Told) -> JSONObject | None:
        said, run_id = told.event.happening, told.event.run_id
        data: dict[str, Any] = said.data
        known = self._known(run_id)
        match said.type:
            case EventType.RUN_STARTED if known.started is None:
                known.started = said.time
                return {"type": "WorkflowStarted", "workflow_id": told.flow} if data.get("attempt", 1) == 1 else None
            case EventType.NODE_STARTED if data.get("attempt", 1) == 1:
                known.types[str(said.node_id)] = data["node_type"]
                return {"type": "NodeStarted", "node_type": data["node_type"]}
            case EventType.NODE_COMPLETED:
                duration = round(data.get("duration_ms", 0))
                return {"type": "NodeCompleted", "outputs": typed_outputs(data["outputs"]), "duration_ms": duration}
            case EventType.NODE_FAILED:
                return {"type": "NodeFailed", "error": data["error"]["message"]}
            case EventType.NODE_RETRYING:
                message = f"trying again in {data['delay_ms']} ms: {data['error']['message']}"
                return _of_node({"event_type": "Warning", "message": message})
            case EventType.LOG if said.node_id is not None:
                return _of_node(_line(data, of_command=known.types.get(said.node_id) in _COMMANDS))
            case EventType.PROGRESS if said.node_id is not None:
                detail = data.get("message") or None
                return _of_node({"event_type": "Progress", "percent": data["percent"], "message": detail})
            case EventType.DATA if said.node_id is not None:
                return _of_node({"event_type": "Data", "port": data["port"], "value": typed_output(data["value"])})
            case EventType.RUN_COMPLETED:
                self._runs.pop(run_id, None)
                took = said.time - (known.started or said.time)
                success = data["status"] == RunStatus.SUCCEEDED
                return {
                    "type": "WorkflowCompleted",
                    "success": success,
                    "duration_ms": took // timedelta(milliseconds=1),
                }
        return None

    def _known(self, run_id: str) -> _Known:
        known = self._runs.setdefault(run_id, _Known())
        self._runs.move_to_end(run_id)
        while len(self._runs) > _REMEMBERED:
            self._runs.popitem(last=False)
        return known


def _of_node(event: JSONObject) -> JSONObject:
    return {"type": "NodeEvent", "event": event}


def _line(data: dict[str, Any], *, of_command: bool) -> JSONObject:
    calm = data["level"] in ("debug", "info")
    if of_command:
        return {"event_type": "StdoutLine" if calm else "StderrLine", "line": data["message"]}
    return {"event_type": "Info" if calm else "Warning", "message": data["message"]}
