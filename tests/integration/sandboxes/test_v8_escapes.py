"""Ways out of a V8 isolate that must lead nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas.outcome import ErrorKind
from tests.code_runs import Heard, error_of, order, value_of
from workers.sandboxes.base import CodeReturned
from workers.sandboxes.v8 import V8Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool() -> AsyncIterator[V8Pool]:
    async with V8Pool(hosts=1, warm_memory_mb=64) as opened:
        yield opened


async def test_nothing_of_node_and_nothing_dangerous_is_a_global(pool: V8Pool) -> None:
    names = ["process", "require", "module", "Buffer", "global", "fetch", "WebAssembly", "SharedArrayBuffer", "Atomics"]
    source = "export default ({names}) => names.filter((name) => name in globalThis)"
    assert await value_of(pool, source, {"names": list(names)}) == []


@pytest.mark.parametrize(
    "root",
    [
        "console.log",
        "setTimeout",
        "clearTimeout",
        "queueMicrotask",
        "__flo_begin",
        "inputs",
        "(async () => {})",
        "(() => { try { null.x } catch (e) { return e } })()",
        "(() => { try { (function f() { f() })() } catch (e) { return e } })()",
        "(() => { try { setTimeout(1) } catch (e) { return e } })()",
        "import.meta",
        "new Proxy(console.log, {})",
    ],
)
async def test_constructor_constructor_never_reaches_the_host(pool: V8Pool, root: str) -> None:
    source = f"""
    export default (inputs) => {{
      const make = Object.getPrototypeOf({root})?.constructor?.constructor ?? Function;
      const world = make('return globalThis')();
      return [world === globalThis, 'process' in world, 'require' in world];
    }}
    """
    assert await value_of(pool, source) == [True, False, False]


async def test_a_stack_s_call_sites_give_away_no_function_of_the_host(pool: V8Pool) -> None:
    source = """
    const found = [];
    Error.prepareStackTrace = (error, sites) => {
      for (const site of sites) found.push(typeof site.getFunction(), typeof site.getThis());
      return 'mine';
    };
    const look = () => void new Error('x').stack;
    export default () => {
      look();
      console.log({ toJSON: look }, { get stack() { return look() } });
      return found.filter((kind) => kind !== 'undefined');
    }
    """
    assert await value_of(pool, source) == []


async def test_a_user_s_prepare_stack_trace_cannot_break_the_telling_of_an_error(pool: V8Pool) -> None:
    source = "Error.prepareStackTrace = () => ({ evil: 1 }); export default () => { throw new Error('boom') }"
    assert (await error_of(pool, source)).message == "Error: boom"


POLLUTION = """
const evil = () => { throw new Error('polluted') };
for (const owner of [Object, Array, Function, String, Number, Promise, Map, Error, RegExp, Symbol]) {
  for (const name of Object.getOwnPropertyNames(owner.prototype)) {
    if (name === 'constructor') continue;
    try { owner.prototype[name] = evil } catch {}
  }
}
for (const owner of [JSON, Reflect, Object, Promise]) {
  for (const name of ['parse', 'stringify', 'apply', 'ownKeys', 'defineProperty', 'create', 'freeze', 'resolve']) {
    try { owner[name] = evil } catch {}
  }
}
Object.prototype.toJSON = undefined;
Object.prototype.value = 'forged';
Object.prototype.kind = 'forged';
const globals = ['String', 'Number', 'Error', 'Promise', 'Map', 'Symbol', 'JSON', 'Reflect'];
for (const name of globals) delete globalThis[name];
"""


async def test_a_run_that_pollutes_every_prototype_still_tells_its_result(pool: V8Pool) -> None:
    heard = Heard()
    source = POLLUTION + "export default ({n}) => { console.log('still', {n}); return {n} }"
    assert await pool.run(order(source, {"n": 1}), heard) == CodeReturned({"n": 1})
    assert heard.lines == [("info", 'still {"n":1}')]


async def test_a_run_that_pollutes_every_prototype_still_tells_its_error(pool: V8Pool) -> None:
    error = await error_of(pool, POLLUTION + "const none = null; export default () => none.x")
    assert (error.kind, "Cannot read properties of null" in error.message) == (ErrorKind.USER, True)


async def test_pollution_never_reaches_the_next_run(pool: V8Pool) -> None:
    await pool.run(order(POLLUTION + "globalThis.left = 1; export default () => 1"), Heard())
    source = "export default () => [typeof left, [1].map((n) => n + 1), JSON.stringify({}), ({}).value ?? null]"
    assert await value_of(pool, source) == ["undefined", [2], "{}", None]


async def test_species_and_thenables_only_ever_change_the_run_s_own_result(pool: V8Pool) -> None:
    source = """
    class Mine extends Promise { static get [Symbol.species]() { throw new Error('species') } }
    export default () => ({ then(ok) { ok(new Mine((done) => done(5))) } })
    """
    outcome = await pool.run(order(source), Heard())
    assert outcome == CodeReturned(5) or "species" in repr(outcome)
    assert await value_of(pool, "export default () => 1") == 1


async def test_calling_the_module_hook_only_chooses_another_function_of_one_s_own(pool: V8Pool) -> None:
    source = "__flo_begin({ default: () => 'mine' }); export default () => 'exported'"
    assert await value_of(pool, source) == "mine"


async def test_generated_code_stays_in_the_isolate(pool: V8Pool) -> None:
    source = "export default () => [eval('typeof process'), new Function('return typeof require')()]"
    assert await value_of(pool, source) == ["undefined", "undefined"]
