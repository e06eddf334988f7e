"""code.javascript and code.typescript: a user's function in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, assert_never

from schemas.json import JSONValue
from schemas.nodes.code import CodeConfig
from workers.nodes.node import NodeCall, NodeError
from workers.preparation.recipe import Flaw, Language, Prepared, Recipe
from workers.preparation.source_map import read_source_map, translated
from workers.sandboxes.base import CodeFailed, CodeOrder, CodeOutcome, CodeReturned


class Code:
    """Run the code and give what it returned as `output`, and each key of a returned object as a port of its own."""

    def __init__(self, language: Language) -> None:
        self._language: Language = language
        self._suffix = "ts" if language == "typescript" else "js"

    async def run(self, call: NodeCall[CodeConfig]) -> Mapping[str, JSONValue]:
        config = call.config
        if self._language == "javascript" and not config.dependencies:  # V8 runs it as it is
            return _ports(await call.tools.code.run(self._order(call, config.code), call.log))
        recipe = Recipe(config.code, self._language, tuple(sorted(config.dependencies.items())))
        match await call.tools.preparer.prepare(recipe):
            case Prepared() as prepared:
                order = self._order(call, prepared.code)
                return _ports(await run_prepared(order, prepared, call))
            case Flaw() as flaw:
                raise NodeError(flaw.error(self._filename(call)))
            case never:
                assert_never(never)

    def _order(self, call: NodeCall[CodeConfig], source: str) -> CodeOrder:
        return CodeOrder(
            source=source,
            inputs=call.inputs,
            app=call.tools.app,
            timeout=call.config.wall_clock,
            memory_mb=call.config.memory_mb,
            max_output_bytes=call.config.max_output_bytes,
            filename=self._filename(call),
        )

    def _filename(self, call: NodeCall[CodeConfig]) -> str:
        return f"{call.node_id}.{self._suffix}"


def _ports(outcome: CodeOutcome) -> Mapping[str, JSONValue]:
    match outcome:
        case CodeReturned():
            value = outcome.value
            return {**value, "output": value} if isinstance(value, dict) else {"output": value}
        case CodeFailed():
            raise NodeError(outcome.error)
        case _:
            assert_never(outcome)


async def run_prepared(
    order: CodeOrder, prepared: Prepared, call: NodeCall[Any], *, own_first: bool = True
) -> CodeOutcome:
    """Run built code; errors, stacks and logs speak of the lines that were written, not of those that were built."""
    # Decoded at the first error, if there ever is one.
    source_map = partial(read_source_map, prepared.source_map)

    def on_log(level: str, message: str) -> None:
        built = f"{order.filename}:" in message
        call.log(level, source_map().translate(message, order.filename) if built else message)

    outcome = await call.tools.code.run(order, on_log)
    if isinstance(outcome, CodeFailed) and outcome.error.details:
        return CodeFailed(translated(outcome.error, source_map(), order.filename, own_first=own_first))
    return outcome
