"""Node types and hooks of another package, in real processes that find them by their entry points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from flo.testing import WrongDocument, run_flow
from schemas.custom import load_nodes
from schemas.errors import SettingsError

HERE = Path(__file__).parent
#: The modules, and the metadata that pip would have written for them.
INSTALLED = os.pathsep.join([str(HERE / "package"), str(HERE / "installed")])
FLOW: dict[str, Any] = {"name": "loud", "nodes": [{"id": "a", "node_type": "text.shout", "config": {"marks": 2}}]}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The processes that a test starts find the package; gives the file of its hook."""
    monkeypatch.setenv("PYTHONPATH", INSTALLED)
    monkeypatch.setenv("SHOUT_NOTE", str(tmp_path / "note"))
    return tmp_path / "note"


def test_a_node_type_of_another_package_runs_and_its_hook_hears_of_it(installed: Path) -> None:
    run = run_flow(FLOW, {"text": "hello"})

    assert (run["status"], run["result"]) == ("succeeded", {"loud": "HELLO!!"})
    assert installed.read_text() == "loud: Succeeded"


def test_its_config_is_checked_like_any_other(installed: Path) -> None:
    wrong = {**FLOW, "nodes": [{**FLOW["nodes"][0], "config": {"marks": 11}}]}

    with pytest.raises(WrongDocument, match=r"nodes\[0\]\.config\.marks: must be at most 10; given 11"):
        run_flow(wrong)


@pytest.mark.usefixtures("installed")
def test_it_is_listed_with_the_others() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flo", "nodes", "--json"], capture_output=True, check=True, timeout=60
    )

    (shout,) = [node_type for node_type in json.loads(done.stdout) if node_type["type"] == "text.shout"]
    assert shout["config_schema"]["properties"]["marks"]["maximum"] == 10


def test_without_the_package_its_node_type_is_unknown() -> None:
    with pytest.raises(WrongDocument, match=r'unknown node type "text\.shout"'):
        run_flow(FLOW, {"text": "hello"})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no_such_module:Node", "can't be loaded: ModuleNotFoundError"),
        ("json:loads", "must be a class with `spec`"),
        ("bad_names:NoDot", 'has the name "shout"; give it two words with a dot'),
        ("bad_names:Reserved", 'has the name "http.shout", but names like that are for Flo\'s own'),
    ],
)
def test_a_package_that_can_not_be_used_is_named_with_the_reason(value: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_nodes([EntryPoint(name="it", value=value, group="flo.nodes")])

    assert why in str(refused.value)
    assert "mend or uninstall the package" in str(refused.value)


def test_two_packages_can_not_bring_the_same_name() -> None:
    one, other = (EntryPoint(name=name, value="shout:Shout", group="flo.nodes") for name in ("one", "other"))

    with pytest.raises(SettingsError, match="which another package has taken"):
        load_nodes([one, other])
