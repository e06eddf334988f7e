"""Flow versions, read from SQL once and kept: they never change."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import timedelta
from typing import TypeAlias, cast

from sqlalchemy import Table, select

from dispatch.store.session import Store
from dispatch.store.tables import FlowRow, FlowVersionRow
from schemas.catalog import Catalog
from schemas.errors import NotFound
from schemas.flow import FlowDocument
from schemas.nodes.spec import SoloBounds
from schemas.solo import with_pods
from schemas.validation import read_document

_versions = cast(Table, FlowVersionRow.__table__)
_flows = cast(Table, FlowRow.__table__)

_Key: TypeAlias = tuple[str, str, int]

#: Flow versions kept in memory.
_KEPT = 1000


class StoredDocuments:
    """Reads documents by app, flow and version; keeps those used last."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        *,
        max_inline_http: timedelta,
        bounds: SoloBounds,
        cluster: bool,
    ) -> None:
        """`bounds` are those of nodes that run alone; `cluster` says that some of them may have pods."""
        self._store = store
        self._catalog = catalog
        self._max_inline_http = max_inline_http
        self._bounds = bounds
        self._cluster = cluster
        self._known: OrderedDict[_Key, FlowDocument] = OrderedDict()
        #: Versions that are being read: whoever asks meanwhile waits for the same.
        self._reading: dict[_Key, asyncio.Task[FlowDocument]] = {}

    async def read(self, app: str, flow: str, version: int) -> FlowDocument:
        """Raises NotFound, or Invalid when this worker allows less than the server that took the document."""
        key = (app, flow, version)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.create_task(self._read(key), name=f"read {flow} of {app}")
            reading.add_done_callback(lambda _: self._reading.pop(key))
        return await asyncio.shield(reading)

    async def _read(self, key: _Key) -> FlowDocument:
        app, flow, version = key
        query = select(_versions.c.document).where(
            _versions.c.app == app, _versions.c.flow == flow, _versions.c.version == version
        )
        async with self._store.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound(f"flow {flow!r} of app {app!r} has no version {version}")
        document, _ = read_document(row.document, catalog=self._catalog, max_inline_http=self._max_inline_http)
        document = with_pods(document, self._bounds, cluster=self._cluster)
        self._known[key] = document
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return document

    async def newest(self, app: str, flow: str) -> int:
        """Raises NotFound, also for a retired flow."""
        query = select(_flows.c.latest_version).where(
            _flows.c.app == app, _flows.c.name == flow, _flows.c.retired_at.is_(None)
        )
        async with self._store.read() as connection:
            version: int | None = await connection.scalar(query)
        if version is None:
            raise NotFound(f"app {app!r} has no flow {flow!r}, or it was retired; push it first")
        return version
