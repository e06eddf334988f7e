"""What was prepared last, in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta

from workers.preparation.recipe import Lasts, Preparation, Prepared, Recipe

#: How long a flaw that may pass is believed.
A_WHILE = timedelta(minutes=10)


class Memory:
    """The preparations used last, up to a number of characters."""

    def __init__(self, *, max_characters: int, now: Callable[[], datetime]) -> None:
        self._max_characters = max_characters
        self._now = now
        self._known: OrderedDict[Recipe, tuple[Preparation, datetime | None]] = OrderedDict()
        self._size = 0

    def get(self, recipe: Recipe) -> Preparation | None:
        found = self._known.get(recipe)
        if found is None:
            return None
        preparation, until = found
        if until is not None and until < self._now():
            self._drop(recipe)
            return None
        self._known.move_to_end(recipe)
        return preparation

    def put(self, recipe: Recipe, preparation: Preparation, until: datetime | None) -> None:
        """Keep it until then, or as long as there is room."""
        if recipe in self._known:
            self._drop(recipe)
        self._known[recipe] = (preparation, until)
        self._size += _size(recipe, preparation)
        while self._size > self._max_characters:
            self._drop(next(iter(self._known)))

    def _drop(self, recipe: Recipe) -> None:
        preparation, _ = self._known.pop(recipe)
        self._size -= _size(recipe, preparation)


def _size(recipe: Recipe, preparation: Preparation) -> int:
    if isinstance(preparation, Prepared):
        return len(recipe.source) + len(preparation.code) + len(preparation.source_map)
    return len(recipe.source) + len(preparation.message)


def believed_until(preparation: Preparation, now: datetime) -> datetime | None:
    """Tell until when a preparation holds; None is for ever."""
    if isinstance(preparation, Prepared) or preparation.lasts is Lasts.ALWAYS:
        return None
    return now + A_WHILE if preparation.lasts is Lasts.A_WHILE else now
