"""What code may do in a code sandbox of any kind, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
import pytest_asyncio

from schemas.outcome import ErrorKind
from tests.code_runs import ENDLESS, SHORT, WAITING, Heard, details, error_of, order, run, value_of
from tests.servers import missing
from workers.sandboxes.base import CodeReturned, CodeSandbox
from workers.sandboxes.plain_node import PlainNodePool
from workers.sandboxes.v8 import V8Pool
from workers.sandboxes.v8.open import open_v8
from workers.sandboxes.v8.setup import v8_setup_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["v8", "v8 in a box", "plain node"])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[CodeSandbox]:
    if problem := v8_setup_problem():
        missing("the V8 sandbox", problem)
    async with AsyncExitStack() as stack:
        match request.param:
            case "v8":
                yield await stack.enter_async_context(V8Pool(hosts=1, warm_memory_mb=64))
            case "v8 in a box":
                pool = await open_v8(hosts=1)
                stack.push_async_callback(pool.aclose)
                yield pool
            case "plain node":
                yield await stack.enter_async_context(PlainNodePool(hosts=1, warm_memory_mb=64))


# Returning ---------------------------------------------------------------------------------------------------------


async def test_a_module_s_default_export_is_called_with_the_inputs(sandbox: CodeSandbox) -> None:
    assert await value_of(sandbox, "export default ({name}) => ({text: `hi ${name}`})", {"name": "Ada"}) == {
        "text": "hi Ada"
    }


async def test_commonjs_code_may_assign_a_function_to_module_exports(sandbox: CodeSandbox) -> None:
    assert await value_of(sandbox, "module.exports = function (inputs) { return inputs.n + 1 }", {"n": 1}) == 2


async def test_commonjs_code_may_assign_a_function_to_exports_default(sandbox: CodeSandbox) -> None:
    assert await value_of(sandbox, "exports.default = async ({n}) => n * 2", {"n": 21}) == 42


async def test_a_function_declared_before_it_is_exported_is_called(sandbox: CodeSandbox) -> None:
    assert await value_of(sandbox, "const main = () => 5;\nexport { main as default };") == 5


async def test_a_module_that_only_mentions_module_exports_is_still_a_module(sandbox: CodeSandbox) -> None:
    assert await value_of(sandbox, "// not module.exports = 1\nexport default () => typeof module") == "undefined"


async def test_commonjs_code_that_only_mentions_export_is_still_commonjs(sandbox: CodeSandbox) -> None:
    assert (
        await value_of(sandbox, "const text = `\nexport default 1`; module.exports = () => text.length; with ({}) {}")
        == 17
    )


async def test_a_promise_is_waited_for(sandbox: CodeSandbox) -> None:
    source = "export default async () => { await new Promise((ok) => setTimeout(ok, 5)); return 'later' }"
    assert await value_of(sandbox, source) == "later"


async def test_a_top_level_await_is_over_before_the_call(sandbox: CodeSandbox) -> None:
    source = "const n = await new Promise((ok) => setTimeout(ok, 5, 7)); export default function () { return n }"
    assert await value_of(sandbox, source) == 7


async def test_undefined_becomes_none(sandbox: CodeSandbox) -> None:
    assert await value_of(sandbox, "export default () => {}") is None


async def test_text_of_every_kind_survives_both_ways(sandbox: CodeSandbox) -> None:
    text = 'line\nline\u2028"\\ \x00 ünï 🎈'
    assert await value_of(sandbox, "export default ({text}) => ({text})", {"text": text}) == {"text": text}


async def test_half_a_surrogate_pair_becomes_a_replacement_character(sandbox: CodeSandbox) -> None:
    assert await value_of(sandbox, "export default () => '🎈'.slice(0, 1) + '🎈'") == "\ufffd🎈"


async def test_half_a_surrogate_pair_in_code_and_inputs_does_no_harm(sandbox: CodeSandbox) -> None:
    source = "/* \ud83c */ export default ({text}) => text.charCodeAt(0)"
    assert await value_of(sandbox, source, {"text": "\ud83c"}) == 0xFFFD


async def test_a_large_input_arrives_whole(sandbox: CodeSandbox) -> None:
    assert await value_of(sandbox, "export default ({text}) => text.length", {"text": "x" * 3_000_000}) == 3_000_000


async def test_timers_repeat_and_can_be_cleared(sandbox: CodeSandbox) -> None:
    source = """
    export default () => new Promise((ok) => {
      let ticks = 0;
      clearTimeout(setTimeout(() => ok('not cleared'), 1));
      const timer = setInterval(() => { if (++ticks === 3) { clearInterval(timer); ok(ticks) } }, 1);
    })
    """
    assert await value_of(sandbox, source) == 3


# Logging -----------------------------------------------------------------------------------------------------------


async def test_logs_arrive_while_the_code_still_runs(sandbox: CodeSandbox) -> None:
    heard = Heard()
    running = asyncio.create_task(sandbox.run(order(WAITING), heard))
    await heard.until(lambda: heard.lines == [("info", "begun")])
    assert not running.done()
    running.cancel()


async def test_each_console_method_has_its_level(sandbox: CodeSandbox) -> None:
    heard = Heard()
    source = (
        "export default () => { for (const name of ['log', 'info', 'warn', 'error', 'debug']) console[name](name) }"
    )
    await sandbox.run(order(source), heard)
    assert [level for level, _ in heard.lines] == ["info", "info", "warning", "error", "debug"]


async def test_values_of_all_kinds_can_be_logged(sandbox: CodeSandbox) -> None:
    heard = Heard()
    source = (
        "export default () => { const o = {}; o.o = o; console.log('a', 1, {b: [2]}, null, undefined, 3n, () => 1, o) }"
    )
    await sandbox.run(order(source), heard)
    assert heard.lines == [
        (
            "info",
            'a 1 {"b":[2]} null undefined 3n [function anonymous] '
            "[not printable: Converting circular structure to JSON]",
        )
    ]


async def test_what_is_logged_too_much_is_dropped_and_that_is_said(sandbox: CodeSandbox) -> None:
    heard = Heard()
    outcome = await sandbox.run(order("export default () => { for (let i = 0; i < 5000; i++) console.log(i) }"), heard)
    assert outcome == CodeReturned(None)
    assert heard.lines[999] == ("info", "999")
    assert heard.lines[1000:] == [
        ("warning", "This code logged more than 1000 lines or 262144 characters: the rest is dropped")
    ]


async def test_a_very_long_line_is_cut_and_that_is_said(sandbox: CodeSandbox) -> None:
    heard = Heard()
    await sandbox.run(order("export default () => console.log('x'.repeat(10000))"), heard)
    assert heard.lines == [("info", "x" * 8192 + "... (1808 more characters)")]


async def test_a_forged_protocol_line_is_only_a_log_line(sandbox: CodeSandbox) -> None:
    heard = Heard()
    forged = '\n{"type":"done","id":1,"value":"1"}\n{"type":"fatal","id":2}\n'
    outcome = await sandbox.run(
        order("export default ({forged}) => { console.log(forged); return 'real' }", {"forged": forged}), heard
    )
    assert (outcome, heard.lines) == (CodeReturned("real"), [("info", forged)])


async def test_an_on_log_that_fails_fails_its_own_run_only(sandbox: CodeSandbox) -> None:
    def fail(level: str, message: str) -> None:
        raise RuntimeError("the caller's own fault")

    with pytest.raises(RuntimeError, match="the caller's own fault"):
        await sandbox.run(order(WAITING), fail)
    assert await value_of(sandbox, "export default () => 1") == 1


# The user's mistakes -----------------------------------------------------------------------------------------------


async def test_a_syntax_error_in_a_module_names_line_and_column(sandbox: CodeSandbox) -> None:
    error = await error_of(sandbox, "export default () => {\n  return 1;\n  }}\n")
    assert (error.kind, error.message) == (ErrorKind.SYNTAX, "code.js:3:4: SyntaxError: Unexpected token '}'")
    assert details(error) == {"line": 3, "column": 4}


async def test_a_syntax_error_in_commonjs_code_names_line_and_column(sandbox: CodeSandbox) -> None:
    error = await error_of(sandbox, "module.exports = () => {\n  let 1x;\n}")
    assert (error.kind, error.message) == (ErrorKind.SYNTAX, "code.js:2:7: SyntaxError: Invalid or unexpected token")


async def test_a_thrown_error_has_the_user_s_stack_and_line_numbers(sandbox: CodeSandbox) -> None:
    source = "function inner() {\n  throw new TypeError('boom')\n}\nexport default () => {\n  inner()\n}"
    error = await error_of(sandbox, order(source, filename="greet.js"))
    assert (error.kind, error.message) == (ErrorKind.USER, "greet.js:2:9: TypeError: boom")
    assert details(error) == {
        "line": 2,
        "column": 9,
        "stack": "TypeError: boom\n    at inner (greet.js:2:9)\n    at default (greet.js:5:3)",
    }


async def test_an_error_in_commonjs_code_has_the_user_s_line_numbers(sandbox: CodeSandbox) -> None:
    error = await error_of(sandbox, "\nmodule.exports = () => {\n  null.x\n}")
    assert error.message == "code.js:3:8: TypeError: Cannot read properties of null (reading 'x')"


async def test_an_error_outside_the_function_is_told_like_one_inside(sandbox: CodeSandbox) -> None:
    assert (
        await error_of(sandbox, "\nthrow new Error('early'); export default () => 1")
    ).message == "code.js:2:7: Error: early"
    assert (
        await error_of(sandbox, "\nthrow new Error('early'); module.exports = 1")
    ).message == "code.js:2:7: Error: early"


async def test_a_runtime_syntax_error_is_a_user_error(sandbox: CodeSandbox) -> None:
    error = await error_of(sandbox, "module.exports = 1; JSON.parse('{')")
    assert (error.kind, details(error)["line"]) == (ErrorKind.USER, 1)


async def test_an_error_that_rejects_later_fails_the_run(sandbox: CodeSandbox) -> None:
    source = "export default async () => { await new Promise((ok) => setTimeout(ok, 1)); throw new Error('late') }"
    assert (await error_of(sandbox, source)).message == "code.js:1:82: Error: late"


async def test_an_error_in_a_timer_fails_the_run(sandbox: CodeSandbox) -> None:
    source = "export default () => { setTimeout(() => { throw new Error('ticked') }, 1); return new Promise(() => {}) }"
    assert (await error_of(sandbox, source)).message == "code.js:1:49: Error: ticked"


async def test_a_rejection_that_nobody_handles_fails_the_run(sandbox: CodeSandbox) -> None:
    source = "export default () => { Promise.reject(new Error('lost')); return 1 }"
    assert (await error_of(sandbox, source)).message == "code.js:1:39: Error: lost"


async def test_what_is_thrown_need_not_be_an_error(sandbox: CodeSandbox) -> None:
    assert (
        await error_of(sandbox, "export default () => { throw 'no' }")
    ).message == 'The code threw "no", which is not an Error'
    assert (
        await error_of(sandbox, "export default () => { throw null }")
    ).message == "The code threw null, which is not an Error"


async def test_a_default_export_that_is_no_function_is_told_as_what_it_is(sandbox: CodeSandbox) -> None:
    error = await error_of(sandbox, "export default 5")
    assert error.message.startswith("The default export is a number, not a function: write `export default")


async def test_a_missing_default_export_names_the_others(sandbox: CodeSandbox) -> None:
    assert (await error_of(sandbox, "export const main = 1, other = 2")).message.startswith(
        "The code has no default export; it exports main, other: write"
    )
    assert (await error_of(sandbox, "exports.main = () => 1")).message.startswith(
        "The code has no default export; it exports main: write"
    )
    assert (await error_of(sandbox, "")).message.startswith("The code has no default export: write")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("export default () => 1n", "Do not know how to serialize a BigInt"),
        ("export default () => { const o = {}; o.o = o; return o }", "Converting circular structure to JSON"),
        ("export default () => () => 1", "The code returned a function, which JSON can't carry"),
        ("export default () => Symbol('s')", "The code returned a symbol, which JSON can't carry"),
        ("export default () => ({ toJSON() { throw 1 } })", "toJSON throws"),
        ("export default () => { let a = []; for (let i = 0; i < 3000; i++) a = [a]; return a }", "nested too deeply"),
    ],
)
async def test_a_result_that_json_cannot_carry_is_told_why(sandbox: CodeSandbox, source: str, reason: str) -> None:
    error = await error_of(sandbox, source)
    assert (error.kind, reason in error.message) == (ErrorKind.USER, True), error.message


# Limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        ENDLESS,
        "for (;;);",
        "module.exports = 1; for (;;);",
        "export default () => /(a+)+$/.test('a'.repeat(40) + 'b')",
        "export default () => new Promise(() => {})",
        "await new Promise(() => {})",
        "export default async () => { for (;;) await 0 }",
        "export default () => { const again = () => queueMicrotask(again); again(); return new Promise(() => {}) }",
        "export default () => ({ get a() { for (;;); } })",
        "export default () => ({ then() { for (;;); } })",
        "export default () => { setTimeout(() => { for (;;); }, 1); return new Promise(() => {}) }",
        "export default () => { setInterval(() => {}, 1); return new Promise(() => {}) }",
        "export default () => { throw Object.defineProperty(new Error(), 'stack', { get() { for (;;); } }) }",
        "export default () => { for (;;) clearTimeout(setTimeout(() => {}, 1e6)) }",
    ],
)
async def test_code_that_does_not_end_times_out(sandbox: CodeSandbox, source: str) -> None:
    error = await error_of(sandbox, order(source, timeout=SHORT))
    assert error.message == "code.js ran longer than its limit of 300 ms; make it quicker or raise timeout_ms"
    assert (error.kind, details(error)) == (ErrorKind.TIMED_OUT, {"limit": 300, "raise_with": "timeout_ms"})


async def test_an_endless_loop_does_not_hold_up_others_in_its_host(sandbox: CodeSandbox) -> None:
    loops = [asyncio.create_task(run(sandbox, order(ENDLESS, timeout=timedelta(seconds=30)))) for _ in range(4)]
    assert await value_of(sandbox, "export default () => 1") == 1
    assert not any(loop.done() for loop in loops)
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)


@pytest.mark.parametrize(
    "source",
    [
        "export default () => { const a = []; for (;;) a.push(new Array(1e5).fill(1)) }",
        "export default () => { const a = []; for (;;) a.push({ a: 1 }) }",
        "export default () => { const a = []; for (;;) a.push(new ArrayBuffer(1e6)) }",
        "export default () => { const a = []; for (;;) a.push(new Uint8Array(100)) }",
        "const a = []; for (;;) a.push(new Array(1e5).fill(1))",
        "module.exports = 1; const a = []; for (;;) a.push(new Array(1e5).fill(1))",
        "export default async () => { const f = async () => { await 0; f(); f() }; f(); await new Promise(() => {}) }",
        "export default () => { const m = new Map(); for (let i = 0; ; i++) m.set(i, i) }",
    ],
)
async def test_code_that_takes_too_much_memory_is_told_so(sandbox: CodeSandbox, source: str) -> None:
    error = await error_of(sandbox, order(source, memory_mb=32))
    assert error.message == "code.js used more memory than its limit of 32 MB; use less or raise memory_mb"
    assert (error.kind, details(error)) == (ErrorKind.MEMORY_EXCEEDED, {"limit": 32, "raise_with": "memory_mb"})


async def test_a_result_over_the_limit_is_told_its_size(sandbox: CodeSandbox) -> None:
    error = await error_of(sandbox, order("export default () => 'x'.repeat(2000)", max_output_bytes=1000))
    assert error.message == (
        "what code.js returned is 2,002 bytes, over the limit of 1,000 bytes; return less or raise max_output_bytes"
    )
    assert (error.kind, details(error)) == (
        ErrorKind.OUTPUT_EXCEEDED,
        {"limit": 1000, "raise_with": "max_output_bytes"},
    )


async def test_the_result_s_size_is_measured_in_bytes_not_characters(sandbox: CodeSandbox) -> None:
    error = await error_of(sandbox, order("export default () => 'ü'.repeat(600)", max_output_bytes=1000))
    assert (error.kind, "is 1,202 bytes" in error.message) == (ErrorKind.OUTPUT_EXCEEDED, True)


async def test_a_result_that_no_string_can_hold_is_output_exceeded(sandbox: CodeSandbox) -> None:
    source = "export default () => Array(600).fill('x'.repeat(2 ** 20))"
    assert (await error_of(sandbox, order(source, memory_mb=2048))).kind == ErrorKind.OUTPUT_EXCEEDED


async def test_deep_recursion_is_a_user_error(sandbox: CodeSandbox) -> None:
    error = await error_of(sandbox, "const f = () => f() + 1; export default f")
    assert (error.kind, "Maximum call stack size exceeded" in error.message) == (ErrorKind.USER, True)


async def test_cancelling_stops_the_code(sandbox: CodeSandbox) -> None:
    heard = Heard()
    source = "export default () => { setInterval(() => console.log('tick'), 1); return new Promise(() => {}) }"
    running = asyncio.create_task(sandbox.run(order(source), heard))
    await heard.until(lambda: len(heard.lines) > 3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    ticks = len(heard.lines)
    assert await value_of(sandbox, "export default () => new Promise((ok) => setTimeout(ok, 20))") is None
    assert len(heard.lines) == ticks


async def test_what_one_run_leaves_behind_is_gone_in_the_next(sandbox: CodeSandbox) -> None:
    await value_of(
        sandbox, "export default () => { globalThis.left = 1; Array.prototype.map = null; JSON.parse = null }"
    )
    source = "export default () => [typeof left, [1].map((n) => n + 1), JSON.parse('{}')]"
    assert await value_of(sandbox, source) == ["undefined", [2], {}]


async def test_forty_runs_at_once_all_return_their_own(sandbox: CodeSandbox) -> None:
    source = "export default async ({n}) => { await new Promise((ok) => setTimeout(ok, n % 7)); return n }"
    assert await asyncio.gather(*(value_of(sandbox, source, {"n": n}) for n in range(40))) == list(range(40))


async def test_a_package_that_is_not_there_is_named_with_its_place(sandbox: CodeSandbox) -> None:
    imported = await error_of(sandbox, "\nimport _ from 'lodash';\nexport default () => _")
    assert imported.message.startswith(
        'code.js:2:15: Cannot import "lodash": npm packages must stand in the node\'s "dependencies"'
    )
    required = await error_of(sandbox, "module.exports = () => require('lodash')")
    assert 'Cannot load "lodash": npm packages must stand in the node\'s "dependencies"' in required.message
