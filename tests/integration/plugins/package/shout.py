"""A package as its author would write it: a node type, and a hook."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from schemas.json import JSONValue
from schemas.nodes.spec import NodeConfig, NodeType, Port
from schemas.outcome import Outcome
from workers.engine.hooks import Hook, RunSeen
from workers.nodes.node import NodeCall


class ShoutConfig(NodeConfig):
    marks: int = Field(default=1, ge=0, le=10, description="exclamation marks")


class Shout:
    """Say it louder."""

    spec: ClassVar = NodeType(
        type="text.shout",
        category="text",
        description="Says a text louder.",
        inputs=(Port(name="text", type="string", required=True, description="what to say"),),
        outputs=(Port(name="loud", type="string", description="the same, louder"),),
        config=ShoutConfig,
        example={"marks": 2},
    )

    async def run(self, call: NodeCall[ShoutConfig]) -> Mapping[str, JSONValue]:
        call.progress(50, "shouting")
        return {"loud": str(call.inputs["text"]).upper() + "!" * call.config.marks}


class Ending(Hook):
    """Leaves a note about how each flow ended."""

    async def after_flow(self, run: RunSeen, outcome: Outcome) -> None:
        note = Path(os.environ["SHOUT_NOTE"])
        await asyncio.to_thread(note.write_text, f"{run.flow}: {type(outcome).__name__}")
