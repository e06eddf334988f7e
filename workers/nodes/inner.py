"""flow.map and flow.race: nodes that run the flows inside their config."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from schemas.json import JSONObject, JSONValue, dumps
from schemas.nodes.inner import MAX_ITEMS, MapConfig, RaceConfig
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, Parked, Retry, RunError, Succeeded
from workers.nodes.node import Inner, NodeCall, NodeError, node_error


class FlowMap:
    """Run the inner flow for each item; what an earlier attempt at the run has put on record is not done again."""

    async def run(self, call: NodeCall[MapConfig]) -> Mapping[str, JSONValue]:
        items = cast(list[JSONValue], call.inputs["items"])
        if len(items) > MAX_ITEMS:
            message = f"flow.map goes through at most {MAX_ITEMS:,} items; given {len(items):,}"
            raise node_error(ErrorKind.INVALID_INPUT, message)
        mapping = _Mapping(call, items)
        todo = iter([index for index in range(len(items)) if index not in mapping.results])
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(call.config.max_parallel, len(items))):
                    group.create_task(mapping.work_off(todo))
        except* NodeError as failures:  # the others have been cancelled, and have stopped
            failure = failures.exceptions[0]
            while isinstance(failure, BaseExceptionGroup):
                failure = failure.exceptions[0]
            raise failure from None
        return mapping.outputs()


class _Mapping:
    """One pass over the items."""

    def __init__(self, call: NodeCall[MapConfig], items: Sequence[JSONValue]) -> None:
        self._call = call
        self._inner = _inner_of(call)
        (self._place,) = call.config.inner_flows()
        self._items = items
        self._rest = {port: value for port, value in call.inputs.items() if port != "items"}
        self._percent = 0
        self.results = {index: value for index, value in self._inner.kept.items() if index < len(items)}
        self._errors: dict[int, RunError] = {}
        self._bytes = 0

    async def work_off(self, todo: Iterator[int]) -> None:
        """Take one item after the other, as long as there are any; several do this at once."""
        for index in todo:
            payload: JSONObject = {**self._rest, self._call.config.item_port: self._items[index], "index": index}
            outcome = await self._inner.run(self._place, payload, label=str(index))
            match result_or_error(outcome, f"item {index}"):
                case RunError() as error if self._call.config.on_item_error == "stop":
                    raise NodeError(error.model_copy(update={"details": {**(error.details or {}), "item": index}}))
                case RunError() as error:
                    self._errors[index] = error
                case [result]:
                    self._weigh(result)
                    self.results[index] = result
                    await self._inner.keep(index, result)
            self._tell_progress()

    def outputs(self) -> Mapping[str, JSONValue]:
        errors = sorted(self._errors.items())
        return {
            "results": [self.results.get(index) for index in range(len(self._items))],
            "errors": [
                {"index": index, "error": error.model_dump(mode="json", exclude_none=True)} for index, error in errors
            ],
            "succeeded": len(self.results),
        }

    def _weigh(self, result: JSONValue) -> None:
        self._bytes += len(dumps(result))
        limit = self._call.config.max_output_bytes
        if self._bytes > limit:
            raise node_error(
                ErrorKind.OUTPUT_EXCEEDED,
                f"the results are bigger than {limit:,} bytes; raise max_output_bytes, or let each item give less",
                limit=limit,
                raise_with="max_output_bytes",
            )

    def _tell_progress(self) -> None:
        done, all_ = len(self.results) + len(self._errors), len(self._items)
        if done * 100 // all_ > self._percent:  # at most a hundred times, however many items there are
            self._percent = done * 100 // all_
            self._call.progress(self._percent, f"{done} of {all_} items")


class FlowRace:
    """Run all flows at once; the first that succeeds wins, and the others have stopped before the node ends."""

    async def run(self, call: NodeCall[RaceConfig]) -> Mapping[str, JSONValue]:
        inner, payload = _inner_of(call), dict(call.inputs)
        async with asyncio.TaskGroup() as group:
            racers = {
                group.create_task(inner.run(f"flows.{name}", payload, label=name)): name for name in call.config.flows
            }
            end = await _first_to_succeed(racers)
            for racer in racers:
                racer.cancel()
        if isinstance(end, RunError):
            raise NodeError(end)
        return end


async def _first_to_succeed(racers: Mapping[asyncio.Task[Outcome], str]) -> Mapping[str, JSONValue] | RunError:
    errors: list[RunError] = []
    running = set(racers)
    while running:
        _, still_running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for racer, name in racers.items():  # of those that end in the same moment the first in the document wins
            if racer not in running or racer in still_running:
                continue
            match result_or_error(racer.result(), f'"{name}"'):
                case RunError() as error:
                    errors.append(error)
                case [result]:
                    return {"output": result, "winner": name}
        running = still_running
    why = "; ".join(error.message for error in errors)
    return RunError(kind=errors[0].kind, message=f"no flow of the race succeeded: {why}")


def result_or_error(outcome: Outcome, what: str) -> RunError | list[JSONValue]:
    """Give the result, in a list of one, or the error with the words that say where it happened."""
    match outcome:
        case Succeeded(result=result):
            return [result]
        case Failed(error=error):
            where = f'{what}, node "{error.node_id}"' if error.node_id else what
            return error.model_copy(update={"message": f"{where}: {error.message}", "node_id": None})
        case Retry(reason=reason) | Cancelled(reason=reason) | Parked(reason=reason):
            return RunError(kind=ErrorKind.LOST, message=f"{what}: {reason}")


def _inner_of(call: NodeCall[MapConfig] | NodeCall[RaceConfig]) -> Inner:
    assert call.inner is not None  # the engine gives it to every node whose config has flows
    return call.inner
