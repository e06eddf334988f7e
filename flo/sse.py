"""Server-sent events (WHATWG HTML, section 9.2), as far as Flo's API uses them: one JSON value to an event."""

from __future__ import annotations

import json

from flo.wire import RunEvent


class Reader:
    """Takes a stream line by line and gives an event whenever one is whole."""

    def __init__(self) -> None:
        self._data: list[str] = []

    def line(self, line: str) -> RunEvent | None:
        """Take one line, without its end; comments and fields other than `data` mean nothing here."""
        if line == "" and self._data:
            event: RunEvent = json.loads("\n".join(self._data))
            self._data.clear()
            return event
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        return None
