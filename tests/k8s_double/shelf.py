"""What the API has stored: objects, each change of them with its number, and who waits for the next one."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
#: (kind, namespace, name)
Key = tuple[str, str, str]


class Gone(Exception):
    """What is asked for is too old to be told (410)."""


class Exists(Exception):
    """There is one of this name (409)."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change, as watches tell it."""

    version: int
    type: str
    kind: str
    namespace: str
    object: Object


class Shelf:
    """Objects by kind, namespace and name. What is stored is never changed in place, so that history stays history."""

    def __init__(self) -> None:
        self.version = 1
        #: Changes up to this one are forgotten.
        self.compacted = 0
        self._objects: dict[Key, Object] = {}
        self._log: deque[Change] = deque()
        self._news = asyncio.Event()
        self._epoch = 0

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._objects.get((kind, namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> list[Object]:
        """List objects by name."""
        found = [(key, each) for key, each in self._objects.items() if key[0] == kind and namespace in (None, key[1])]
        return [each for _, each in sorted(found, key=lambda pair: pair[0])]

    def create(self, kind: str, given: Object) -> Object:
        """Store a new object. Raises Exists."""
        metadata = given["metadata"]
        key = (kind, metadata["namespace"], metadata["name"])
        if key in self._objects:
            raise Exists(metadata["name"])
        made = copy.deepcopy(given)
        made["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(), "generation": 1}
        return self._put(key, made, "ADDED")

    def change(self, stored: Object, update: Mapping[str, Any]) -> Object:
        """Store an object again with other metadata, spec or status; the keys within each are merged."""
        key = _key(stored)
        current = copy.deepcopy(self._objects[key])
        for part, changes in update.items():
            current[part] = {**current.get(part, {}), **changes}
        return self._put(key, current, "MODIFIED")

    def remove(self, stored: Object) -> None:
        key = _key(stored)
        if (last := self._objects.pop(key, None)) is not None:
            self.version += 1
            self._tell(key, _versioned(last, self.version), "DELETED")

    async def follow(self, kind: str, namespace: str | None, after: int, *, until: float) -> AsyncIterator[Change]:
        """Give every change after a version, until the loop's time is up or watches are dropped. Raises Gone."""
        epoch = self._epoch
        loop = asyncio.get_running_loop()
        while epoch == self._epoch and loop.time() < until:
            if after < self.compacted:
                raise Gone(f"too old resource version: {after} ({self.version})")
            news = self._news
            for change in list(self._after(after)):
                after = change.version
                if change.kind == kind and namespace in (None, change.namespace):
                    yield change
            if news is self._news:
                try:
                    await asyncio.wait_for(news.wait(), until - loop.time())
                except TimeoutError:
                    return

    def compact(self) -> None:
        """Forget all history: who watches from an older version has to list again."""
        self._log.clear()
        self.compacted = self.version
        self._wake()

    def drop_watches(self) -> None:
        """End every watch, as a restart of the API server does."""
        self._epoch += 1
        self._wake()

    async def settled(self) -> None:
        """Wait for the next change."""
        await self._news.wait()

    def _after(self, version: int) -> Iterator[Change]:
        return (change for change in self._log if change.version > version)

    def _put(self, key: Key, object_: Object, type_: str) -> Object:
        self.version += 1
        stored = self._objects[key] = _versioned(object_, self.version)
        self._tell(key, stored, type_)
        return stored

    def _tell(self, key: Key, object_: Object, type_: str) -> None:
        self._log.append(Change(self.version, type_, key[0], key[1], object_))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def matches(object_: Object, selector: str) -> bool:
    """Tell whether labels are as a selector of equalities wants them."""
    labels = object_["metadata"].get("labels", {})
    wanted = (part.split("=") for part in selector.replace("==", "=").split(",") if part)
    return all(labels.get(name) == value for name, value in wanted)


def _key(stored: Object) -> Key:
    return stored["kind"], stored["metadata"]["namespace"], stored["metadata"]["name"]


def _versioned(object_: Object, version: int) -> Object:
    return {**object_, "metadata": {**object_["metadata"], "resourceVersion": str(version)}}
