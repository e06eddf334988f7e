"""Node types whose names can't be theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from shout import Shout


class NoDot(Shout):
    spec: ClassVar = replace(Shout.spec, type="shout")


class Reserved(Shout):
    spec: ClassVar = replace(Shout.spec, type="http.shout")
