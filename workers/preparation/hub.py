"""`python -P -m workers.preparation.hub install|list|remove`: what `flo hub` starts. Prints one line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import sys

import orjson

from schemas.errors import FloError
from schemas.json import JSONObject, JSONValue
from schemas.nodes.hub import HubShelf
from schemas.settings import Settings, load_settings
from workers.preparation.bundler import Bundler
from workers.preparation.hub_install import install, remove
from workers.preparation.npm import Npm


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit code: 0, or 2 for the user's mistake."""
    given = _parser().parse_args(arguments)
    try:
        settings = load_settings()
        match given.command:
            case "install":
                answer: JSONValue = asyncio.run(_install(given.package, settings))
            case "remove":
                answer = asyncio.run(_remove(given.package, settings))
            case _:
                answer = _list(settings)
    except FloError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return 2
    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.preparation.hub", description="Hub packages of this home.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install").add_argument("package", help="<package>@<version>, a folder or a tarball")
    commands.add_parser("remove").add_argument("package", help="<package>@<version>")
    commands.add_parser("list")
    return parser


async def _install(spec: str, settings: Settings) -> JSONObject:
    bundler = Bundler()
    try:
        record = await install(spec, hub=settings.hub, npm=Npm(scripts=settings.npm_scripts), bundler=bundler)
    finally:
        await bundler.aclose()
    return record.node_type().as_json()


async def _remove(name: str, settings: Settings) -> JSONObject:
    return {"removed": await remove(name, hub=settings.hub)}


def _list(settings: Settings) -> JSONValue:
    shelf = HubShelf(settings.hub)
    return [node_type.as_json() for node_type in map(shelf.get, shelf.names()) if node_type is not None]


if __name__ == "__main__":
    sys.exit(main())
