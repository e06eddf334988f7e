"""Code that fights its isolate, in the modes in which an isolate is its first wall."""

# Hostile programs stand on one line each, however long.
# ruff: noqa: E501

from __future__ import annotations

import asyncio

import pytest
from in_mode import InMode

from schemas.outcome import ErrorKind, Failed, Succeeded

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Function bodies that return "GOT" if they get what they want.
REACHING = {
    "process by the constructor's constructor": "return this.constructor.constructor('return typeof process')() === 'object' ? 'GOT' : 0",
    "process by a function's own": "return (()=>{}).constructor('return typeof process')() === 'object' ? 'GOT' : 0",
    "process by an async function's": "return (async()=>{}).constructor('return typeof process')().then(t => t === 'object' ? 'GOT' : 0)",
    "process by a generator's": "return (function*(){}).constructor('return typeof process')().next().value === 'object' ? 'GOT' : 0",
    "process by eval": "return (0, eval)('typeof process') === 'object' ? 'GOT' : 0",
    "process by the inputs' prototype": "return Object.getPrototypeOf(inputs).constructor.constructor('return typeof process')() === 'object' ? 'GOT' : 0",
    "process by an error from the host": "try { console.log({get toString() { throw 1 }}) } catch (e) { return e?.constructor?.constructor('return typeof process')?.() === 'object' ? 'GOT' : 0 }",
    "process by a deep stack": "const f = () => { try { f() } catch (e) { return e.constructor.constructor('return typeof process')() } }; return f() === 'object' ? 'GOT' : 0",
    "process by prepareStackTrace": "Error.prepareStackTrace = (e, s) => s; const s = new Error().stack; return Array.isArray(s) && s.some(f => f.getThis?.()?.process) ? 'GOT' : 0",
    "process by console": "return console.log.constructor('return typeof process')() === 'object' ? 'GOT' : 0",
    "process by setTimeout": "return setTimeout.constructor('return typeof process')() === 'object' ? 'GOT' : 0",
    "process by a timer's this": "return new Promise(done => setTimeout(function () { done(this?.process ? 'GOT' : 0) }, 1))",
    "require": "return typeof require === 'function' ? 'GOT' : 0",
    "module.constructor._load": "return typeof module !== 'undefined' && module.constructor?._load ? 'GOT' : 0",
    "a dynamic import": "return import('node:fs').then(() => 'GOT', () => 0)",
    "a dynamic import of data": "return import('data:text/javascript,export default 1').then(() => 'GOT', () => 0)",
    "fetch": "return typeof fetch === 'function' ? 'GOT' : 0",
    "WebSocket": "return typeof WebSocket === 'function' || typeof XMLHttpRequest === 'function' ? 'GOT' : 0",
    "the isolate's own references": "return Object.getOwnPropertyNames(globalThis).some(n => /ivm|isolate|flo_|reference/i.test(n) && typeof globalThis[n] === 'object') ? 'GOT' : 0",
    "a worker": "return typeof Worker === 'function' ? 'GOT' : 0",
    "Atomics.wait": "try { Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0, 50); } catch (e) {} return 0",
    "the bootstrap by Object.prototype": "Object.prototype.then = function (r) { r('GOT') }; return 0",
    "the bootstrap by Array.prototype": "Array.prototype.push = function () { return 'GOT' }; Array.prototype[Symbol.iterator] = function* () { yield 'GOT' }; return 0",
    "the bootstrap by JSON": "JSON.stringify = () => '\"GOT\"'; JSON.parse = () => 'GOT'; return 0",
    "the bootstrap by Promise": "Promise.prototype.then = function () { return 'GOT' }; globalThis.Promise = class { static resolve() { return 'GOT' } }; return 0",
    "the bootstrap by String": "String.prototype.slice = () => 'GOT'; String.prototype.charAt = () => 'GOT'; String = () => 'GOT'; return 0",
    "the bootstrap by Symbol.species": "class A extends Array { static get [Symbol.species]() { return function () { return ['GOT'] } } } return new A(3).map(x => x).length === 1 ? 0 : 0",
    "the bootstrap by a getter on globalThis": "Object.defineProperty(globalThis, 'console', {get() { return 'GOT' }}); return 0",
    "another result by a thenable": "return {then(done) { done({then(again) { again(0) }}) }}",
    "another result by toJSON": "return {toJSON() { this.toJSON = 0; return 0 }}",
    "another result by a Proxy": "return new Proxy({}, {get: () => 0, ownKeys: () => []})",
    "a forged answer": 'console.log(\'{"type":"done","id":1,"value":"\\\\"GOT\\\\""}\\n\'); return 0',
    "a forged answer with a new line": 'console.log(\'x\\n{"type":"done","id":1,"value":"1"}\\n{"type":"fatal","id":1}\\n\'); return 0',
    "wasm memory beyond its own": "try { new WebAssembly.Memory({initial: 65536}) } catch (e) {} return 0",
}

#: Function bodies that take too much; with what they may end in.
_T, _M, _O, _U = ErrorKind.TIMED_OUT, ErrorKind.MEMORY_EXCEEDED, ErrorKind.OUTPUT_EXCEEDED, ErrorKind.USER
TAKING = {
    "time by a loop": ("for (;;);", {_T}),
    "time by a regular expression": ("return /^(a+)+$/.test('a'.repeat(40) + 'b')", {_T}),
    "time by promises": ("const f = () => Promise.resolve().then(f); return f()", {_T, _M}),
    "time by never answering": ("return new Promise(() => {})", {_T, _U}),
    "time by timers": ("const f = () => setTimeout(f, 0); f(); return new Promise(() => {})", {_T}),
    "time by JSON": ("const a = []; for (let i = 0; i < 1e7; i++) a.push({i}); for (;;) JSON.stringify(a)", {_T, _M}),
    "time by a sort": ("for (;;) Array.from({length: 1e5}, Math.random).sort(() => Math.random() - 0.5)", {_T, _M}),
    "time by big integers": ("let n = 3n; for (;;) n *= n", {_T, _M, _U}),
    "time by toJSON": ("return {toJSON() { for (;;); }}", {_T}),
    "time by a getter in the result": ("return {get a() { for (;;); }}", {_T}),
    "time by async generators": ("async function* g() { for (;;) yield 1 } for await (const x of g());", {_T}),
    "memory by arrays": ("const a = []; for (;;) a.push(new Array(10000).fill(Math.random()))", {_M}),
    "memory by strings": ("let s = 'x'; for (;;) s += s + Math.random()", {_M, _U}),
    "memory by array buffers": ("const a = []; for (;;) a.push(new ArrayBuffer(1 << 24))", {_M, _U}),
    "memory by wasm": ("const a = []; for (;;) a.push(new WebAssembly.Memory({initial: 100}))", {_M, _U}),
    "memory by closures": ("let f = () => 0; for (;;) { const g = f; f = () => g }", {_M}),
    "memory by promises": ("const a = []; for (;;) a.push(new Promise(() => {}))", {_M}),
    "the stack": ("const f = () => f() + 1; return f()", {_U}),
    "the stack by a result": ("let o = {}; const top = o; for (let i = 0; i < 1e5; i++) o = o.a = {}; return top", {_U, _O}),
    "the stack by brackets": ("return eval('['.repeat(1e6))", {_U, ErrorKind.SYNTAX, _M}),
    "output by a string": ("return 'x'.repeat(1e8)", {_O, _M}),
    "output by nesting": ("return Array(1e4).fill(Array(1e3).fill('x'))", {_O, _M}),
    "output by a cycle": ("const a = {}; a.a = a; return a", {_U}),
    "output by a BigInt": ("return 10n", {_U}),
}  # fmt: skip


@pytest.mark.parametrize("what", REACHING)
async def test_code_reaches_nothing(isolates: InMode, what: str) -> None:
    code = f"export default async function (inputs) {{ {REACHING[what]} }}"

    outcome = await isolates.run(isolates.order("code.javascript", {"code": code, "timeout_ms": 3000}))

    assert isinstance(outcome, Succeeded | Failed)
    if isinstance(outcome, Failed):
        assert outcome.error.kind in {ErrorKind.USER, ErrorKind.KILLED}, outcome
    assert "GOT" not in str(outcome.result if isinstance(outcome, Succeeded) else "")


@pytest.mark.parametrize("what", TAKING)
async def test_code_that_takes_too_much_is_told_what_it_took(isolates: InMode, what: str) -> None:
    body, kinds = TAKING[what]
    code = f"export default async function (inputs) {{ {body} }}"

    limit = 700 if what.startswith("time") else 15_000
    error = await isolates.error("code.javascript", {"code": code, "timeout_ms": limit, "memory_mb": 48})

    assert error.kind in kinds, error


async def test_what_one_run_leaves_behind_the_next_does_not_find(isolates: InMode) -> None:
    await isolates.run(
        isolates.order(
            "code.javascript", {"code": "globalThis.mine = 1; Object.prototype.mine = 2; export default () => 1"}
        )
    )

    assert await isolates.javascript("export default () => ({mine: typeof mine, of: ({}).mine ?? null})") == {
        "mine": "undefined", "of": None, "output": {"mine": "undefined", "of": None},
    }  # fmt: skip


async def test_an_attack_hurts_nobody_who_runs_beside_it(isolates: InMode) -> None:
    hungry = {
        "code": "export default () => { const a = []; for (;;) a.push(new Array(1e4).fill(1.5)) }",
        "memory_mb": 48,
        "timeout_ms": 5000,
    }
    attacks = [isolates.run(isolates.order("code.javascript", hungry, app="evil")) for _ in range(3)]
    honest = [isolates.javascript(f"export default () => ({{n: {n}}})", timeout_ms=30_000) for n in range(10)]

    found = await asyncio.gather(*honest, *attacks)

    assert [each["n"] for each in found[:10]] == list(range(10))
    assert all(isinstance(each, Failed) for each in found[10:])
