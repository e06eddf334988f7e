"""`python -P -m workers.runner run|validate|nodes|schema`: see `protocol.py` for what it prints."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import cast

import orjson
import structlog

from schemas.catalog import Catalog, load_catalog
from schemas.errors import FloError, Invalid, Problem
from schemas.flow import FlowDocument
from schemas.flow_schema import flow_schema
from schemas.half_pairs import read_own
from schemas.json import JSONValue, to_bytes
from schemas.run import RunStatus, RunView
from schemas.settings import ExecutionMode, Settings, load_settings
from schemas.solo import bounds_of
from schemas.validation import read_document
from workers.runner.local import run_here
from workers.runner.protocol import OK, RUN_FAILED, USERS_MISTAKE, invalid, valid, write_line


class Mistake(FloError):
    """The user gave something that can't be used."""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    given = _parser().parse_args(arguments)
    _log_to_stderr()
    machine: bool = given.json or getattr(given, "events", False)
    try:
        settings = load_settings()
        # Where no mode is named, what a file needs decides what is opened, and what can't be says so.
        mode = settings.execution_mode or ExecutionMode.SANDBOX_CODE_AND_PROCESS
        catalog = load_catalog(mode, npm=settings.npm, hub=settings.hub, solo=bounds_of(settings))
        match given.command:
            case "run":
                return _run(given, settings, catalog, machine=machine)
            case "validate":
                return _validate(given, settings, catalog, machine=machine)
            case "schema":
                write_line(flow_schema(catalog.list()))
                return OK
            case _:
                return _nodes(catalog, machine=machine)
    except Invalid as mistakes:
        if machine:
            write_line(invalid(mistakes))
        else:
            print(mistakes, file=sys.stderr)
        return USERS_MISTAKE
    except FloError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return USERS_MISTAKE


def _log_to_stderr() -> None:
    """Keep logs off stdout, which carries the protocol; tracebacks without locals, which hold users' data."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.runner", description="Run flow files without a server.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a flow file and print the run")
    run.add_argument("file", help="a flow document (JSON); - reads it from stdin")
    run.add_argument("--input", "-i", default="{}", help="the payload: JSON text, or @FILE")
    run.add_argument("--events", action="store_true", help="print each happening as it happens, one JSON line each")
    validate = commands.add_parser("validate", help="list every mistake in a flow file")
    validate.add_argument("file", help="a flow document (JSON); - reads it from stdin")
    nodes = commands.add_parser("nodes", help="list the node types")
    schema = commands.add_parser("schema", help="print the JSON Schema of flow documents")
    for command in (run, validate, nodes, schema):
        command.add_argument("--json", action="store_true", help="print one line of JSON")
    return parser


def _run(given: argparse.Namespace, settings: Settings, catalog: Catalog, *, machine: bool) -> int:
    document, notes = _read(given.file, settings, catalog)
    if not machine:
        _print_notes(notes)
    payload = _payload(given.input)
    view = asyncio.run(_run_until_stopped(document, payload, settings, catalog, printing=given.events))
    if machine:
        write_line(view)
    else:
        print(to_bytes(view.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode())
    return OK if view.status is RunStatus.SUCCEEDED else RUN_FAILED


async def _run_until_stopped(
    document: FlowDocument, payload: JSONValue, settings: Settings, catalog: Catalog, *, printing: bool
) -> RunView:
    run = asyncio.ensure_future(run_here(document, payload, settings, catalog, printing=printing))
    for signal_ in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_, run.cancel)
    return await run


def _validate(given: argparse.Namespace, settings: Settings, catalog: Catalog, *, machine: bool) -> int:
    document, notes = _read(given.file, settings, catalog)
    if machine:
        write_line(valid(document, notes))
    else:
        _print_notes(notes)
        print(f'{given.file}: the flow "{document.name}" is valid ({len(document.nodes)} nodes)')
    return OK


def _nodes(catalog: Catalog, *, machine: bool) -> int:
    if machine:
        write_line([node_type.as_json() for node_type in catalog.list()])
    else:
        for node_type in catalog.list():
            print(f"{node_type.type:26} {node_type.category:10} {node_type.description}")
    return OK


def _read(file: str, settings: Settings, catalog: Catalog) -> tuple[FlowDocument, tuple[Problem, ...]]:
    cap = timedelta(seconds=settings.inline_http_max_duration)
    return read_document(_json(_text(file), what=file), catalog=catalog, max_inline_http=cap)


def _payload(given: str) -> JSONValue:
    if given.startswith("@"):
        return _json(_text(given[1:]), what=given[1:])
    return _json(given.encode(), what="--input")


def _text(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise Mistake(f"{file} can't be read: {error.strerror}; give the path of a file that exists") from None


def _json(text: bytes, *, what: str) -> JSONValue:
    try:
        return cast(JSONValue, read_own(text, what=what))
    except orjson.JSONDecodeError as mistake:
        raise Mistake(
            f"{what} is not JSON: {mistake.msg} at line {mistake.lineno}, column {mistake.colno}; correct it there"
        ) from None


def _print_notes(notes: tuple[Problem, ...]) -> None:
    for note in notes:
        print(f"note: {note.path}: {note.message}" + (f" ({note.fix})" if note.fix else ""), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
