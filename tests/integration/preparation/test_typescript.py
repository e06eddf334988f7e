"""code.typescript, from its source to its result, in real isolates."""

from __future__ import annotations

import pytest
from prepared_flows import Flows

from schemas.outcome import ErrorKind, Failed, Succeeded
from schemas.run import EventType

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREET = """
import type { Nothing } from "nowhere";
interface Person { name: string }
enum Tone { Kind = "dear" }

export default async ({ name }: Person): Promise<{ text: string }> => {
  const text: string = `${Tone.Kind} ${name}`;
  return { text } satisfies { text: string };
};
"""


async def test_a_typescript_node_runs(flows: Flows) -> None:
    outcome = await flows.run("code.typescript", {"name": "bo"}, code=GREET)

    assert outcome == Succeeded(result={"output": {"text": "dear bo"}, "text": "dear bo"})


@pytest.mark.parametrize(
    "source",
    [
        "module.exports = ({n}: {n: number}) => n + 1",
        "export = ({n}: {n: number}) => n + 1",
        "const add = (n: number): number => n + 1; export default ({n}: any) => add(n)",
        "class A { constructor(public n: number) {} } export default ({n}: any) => new A(n).n + 1",
        "const one = await Promise.resolve<number>(1); export default ({n}: any) => n + one",
        "const up = (f: any, c: any) => function (this: any) { return f.call(this) + 1 };\n"
        "class A { n = 0; @up get() { return this.n } }\n"
        "export default ({n}: any) => Object.assign(new A(), {n}).get()",
    ],
)  # fmt: skip
async def test_every_form_of_module_and_what_v8_can_not_read_itself_runs(flows: Flows, source: str) -> None:
    assert await flows.run("code.typescript", {"n": 1}, code=source) == Succeeded(result={"output": 2})


async def test_types_are_not_checked(flows: Flows) -> None:
    outcome = await flows.run("code.typescript", code="const n: number = 'text'; export default () => n")

    assert outcome == Succeeded(result={"output": "text"})


async def test_a_syntax_error_has_line_and_column_of_the_source(flows: Flows) -> None:
    outcome = await flows.run("code.typescript", code="const é = 'ü';\nexport default () => { const n: = 3 }")

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.SYNTAX
    assert outcome.error.message == 'a.ts:2:33: SyntaxError: Unexpected "="'
    assert outcome.error.details == {"line": 2, "column": 33}


async def test_an_error_and_its_stack_have_the_lines_of_the_source(flows: Flows) -> None:
    source = """type A = string;
type B = number;

function fail(why: A): never {

  throw new TypeError(why);
}

export default () => {
  fail("no");
};
"""

    outcome = await flows.run("code.typescript", code=source)

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.USER
    assert outcome.error.message == "a.ts:6:9: TypeError: no"
    assert outcome.error.details is not None
    assert (outcome.error.details["line"], outcome.error.details["column"]) == (6, 9)
    first, second, *_ = str(outcome.error.details["stack"]).splitlines()[1:]
    assert first == "    at fail (a.ts:6:9)"
    assert second.endswith("(a.ts:10:3)")


async def test_a_stack_in_the_log_has_the_lines_of_the_source(flows: Flows) -> None:
    await flows.run(
        "code.typescript", code="type A = 1;\n\nexport default () => {\n  console.log(new Error('look'))\n}"
    )

    (said,) = [happening.data for happening in flows.events.happenings if happening.type is EventType.LOG]
    assert "a.ts:4:15" in str(said["message"])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import _ from 'lodash'; export default () => _", 'add "dependencies": {"lodash": "<version>"}'),
        ("import _ from '@acme/slug/x'; export default () => _", 'add "dependencies": {"@acme/slug": "<version>"}'),
        ("import fs from 'node:fs'; export default () => fs", "it is part of Node, and code runs in plain V8"),
        ("import fs from 'fs'; export default () => fs", "it is part of Node, and code runs in plain V8"),
        ("import x from './secret.ts'; export default () => x", "a code node is one module"),
        ("import x from '/etc/passwd' with {type: 'text'}; export default () => x", "a code node is one module"),
        ("import x from 'https://a.example/b.js'; export default () => x", "a code node is one module"),
        ("export default () => require('../../../../etc/hostname')", "a code node is one module"),
        ("export default () => import('/etc/hostname')", "a code node is one module"),
    ],
)
async def test_an_import_that_can_not_be_had_says_why_and_reads_no_file(flows: Flows, source: str, said: str) -> None:
    outcome = await flows.run("code.typescript", code=source)

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.INVALID_INPUT
    assert outcome.error.message.startswith("a.ts:1:")
    assert said in outcome.error.message


@pytest.mark.parametrize("comment", ["//# sourceMappingURL=/dev/zero", "//# sourceMappingURL=data:application/json,{}"])
async def test_a_source_map_that_the_source_names_is_not_followed(flows: Flows, comment: str) -> None:
    source = f"export default () => {{\n  throw new Error('no')\n}}\n{comment}\n"

    outcome = await flows.run("code.typescript", code=source)

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.USER
