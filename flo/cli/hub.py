"""`flo hub`: nodes that come as npm packages."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Annotated, Any

import typer

from flo.cli.options import AsJSON
from flo.errors import FloError
from flo.orphans import die_with_parent

hub = typer.Typer(help="Install nodes that come as npm packages.", no_args_is_help=True)

Package = Annotated[str, typer.Argument(metavar="PACKAGE@VERSION", help="An installed package and its version.")]


@hub.command()
def install(
    package: Annotated[
        str, typer.Argument(metavar="PACKAGE", help="PACKAGE@VERSION of the npm registry, a folder, or a tarball.")
    ],
    *,
    as_json: AsJSON = False,
) -> None:
    """Install a hub package, for every flow of this home."""
    print(f"installing {package} ...", file=sys.stderr)
    installed = _ask("install", package)
    print(json.dumps(installed, ensure_ascii=False, indent=2) if as_json else f"{installed['type']} is installed")


@hub.command("list")
def list_(*, as_json: AsJSON = False) -> None:
    """List the installed hub packages."""
    from flo.cli.tables import print_table

    installed = _ask("list")
    if as_json:
        print(json.dumps(installed, ensure_ascii=False, indent=2))
        return
    rows = [[t["type"], _ports(t["inputs"]), _ports(t["outputs"]), t["description"]] for t in installed]
    print_table(["Type", "Inputs", "Outputs", "What it does"], rows, what="hub packages")


@hub.command()
def remove(package: Package, *, as_json: AsJSON = False) -> None:
    """Remove an installed hub package; flows that use it fail from then on."""
    removed = _ask("remove", package)
    print(json.dumps(removed) if as_json else f"{removed['removed']} is removed")


def _ports(ports: list[dict[str, Any]]) -> str:
    return ", ".join(port["name"] for port in ports) or "-"


def _ask(*arguments: str) -> Any:
    """Start the program that does it, and give what it answers; it says itself what the user did wrong."""
    command = [sys.executable, "-P", "-m", "workers.preparation.hub", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, preexec_fn=die_with_parent(), check=False)
    if done.returncode == 2:
        raise typer.Exit(2)
    if done.returncode != 0:
        raise FloError(f"the hub ended with exit code {done.returncode}; what it printed above says why")
    return json.loads(done.stdout)
