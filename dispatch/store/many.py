"""One statement for many rows, without what SQLAlchemy does for each of them.

For each row of an executemany it builds a dictionary of all parameters and looks for each value's type: more than what
SQLite takes to write the row. Here both are found once, when a statement first meets a dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import BindParameter, Connection, Delete, Insert, Update
from sqlalchemy.engine import Dialect

Process: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement in a database's own words; each parameter in its place, with what makes its value fit to be sent."""

    text: str
    places: Sequence[tuple[str, Process | None]]
    #: Values that the statement itself gives.
    fixed: Mapping[str, Any]


class Many:
    """An insert, update or delete that is executed with many rows at once; every row names all its parameters.

    An insert is into `columns`, or into all; none may have a default that is made in Python.
    """

    def __init__(self, statement: Insert | Update | Delete, *columns: str) -> None:
        self._statement = statement
        self._columns = list(columns) or None
        self._compiled: dict[str, _Compiled] = {}

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it in the connection's transaction, row by row in order."""
        known = self._compiled.get(connection.dialect.driver) or self._compile(connection.dialect)
        fixed = known.fixed
        values = [
            tuple([process(row[name]) if process else row[name] for name, process in known.places])
            for row in (({**fixed, **row} for row in rows) if fixed else rows)
        ]
        connection.exec_driver_sql(known.text, values)

    def _compile(self, dialect: Dialect) -> _Compiled:
        compiled: Any = self._statement.compile(dialect=dialect, column_keys=self._columns)
        assert not compiled.insert_prefetch and not compiled.update_prefetch, "a column has a default made in Python"
        places = [(name, _process(compiled.binds[name], dialect)) for name in compiled.positiontup]
        fixed = {name: one.value for name, one in compiled.binds.items() if not one.required}
        known = self._compiled[dialect.driver] = _Compiled(compiled.string, places, fixed)
        return known


def _process(parameter: BindParameter[Any], dialect: Dialect) -> Process | None:
    return parameter.type.dialect_impl(dialect).bind_processor(dialect)
