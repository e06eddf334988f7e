"""What the engine does for a node that waits for something outside: it remembers how, and knows what has come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from datetime import datetime

from schemas.json import JSONObject, JSONValue
from schemas.outcome import WaitKind
from schemas.waitpoint import opening

Say = Callable[[JSONObject], None]


class NodeWaits:
    """The waits of one node, during one try at it."""

    def __init__(
        self,
        *,
        begun: JSONObject | None,
        opened: Set[str],
        answers: Mapping[str, JSONObject],
        woken: datetime | None,
        child: Callable[[], str],
        say: Say,
    ) -> None:
        """`child` names the waitpoint of the run that the node starts, if it starts one."""
        self.begun = begun
        self._opened = opened
        self._answers = answers
        self._woken = woken
        self._child = child
        self._say = say

    def begin(self, note: JSONObject, *, port: str, value: JSONValue, opens: tuple[str, WaitKind] | None) -> None:
        said: JSONObject = {"port": port, "value": value, "wait": note}
        self._say(said if opens is None else {**said, "waitpoint": opening(*opens)})

    def has_opened(self, waitpoint: str) -> bool:
        return waitpoint in self._opened

    def answer(self, waitpoint: str) -> JSONObject | None:
        return self._answers.get(waitpoint)

    def is_over(self, until: datetime | None) -> bool:
        return until is not None and self._woken is not None and self._woken >= until

    def child(self) -> str:
        return self._child()
