"""Expressions over a node's inputs: `order.total > 100 and country in ["DE", "AT"]`.

The words are those of Python's expressions, the values those of JSON. There is no way to bind a name, to loop or to
call anything but the functions below, so an expression costs at most its own length times the size of its inputs.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from schemas.json import JSONValue, dumps
from schemas.wording import listed, short

#: Longest expression, in characters, and its deepest nesting.
MAX_LENGTH: Final = 2000
MAX_DEPTH: Final = 50
#: Whole numbers grow no further than this; a chain of multiplications would never end otherwise.
_BIGGEST: Final = 2**64
#: Characters of a text that an expression makes.
_LONGEST: Final = 10_000_000

_WORDS: Final[dict[str, JSONValue]] = {"true": True, "false": False, "null": None}


class ExpressionError(ValueError):
    """The expression can't be read, or makes no sense for these inputs."""


def check_expression(text: str) -> str:
    """Give the text back if it is an expression. Raises ExpressionError with what is wrong in it."""
    _parse(text)
    return text


def evaluate(text: str, inputs: Mapping[str, JSONValue]) -> JSONValue:
    """Give the expression's value; what the inputs do not have is null. Raises ExpressionError."""
    value: JSONValue = _value(_parse(text), inputs)
    return value


def truth(text: str, inputs: Mapping[str, JSONValue]) -> bool:
    """Tell whether the expression holds: null, false, 0 and what is empty do not."""
    return bool(evaluate(text, inputs))


@lru_cache(maxsize=256)  # a parsed expression may take half a megabyte
def _parse(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH} characters; given {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as mistake:
        where = f" at column {mistake.offset}" if mistake.offset else ""
        raise ExpressionError(
            f'not an expression: {mistake.msg}{where}; write e.g. total > 100 and "x" in tags'
        ) from None
    except (ValueError, MemoryError, RecursionError):
        raise ExpressionError("not an expression: it is nested too deeply or has a null character") from None
    _check(tree, depth=0)
    return tree


def _check(node: ast.AST, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ExpressionError(f"an expression is nested at most {MAX_DEPTH} levels deep")
    match node:
        case ast.Constant(value=str() | bool() | int() | float() | None) | ast.expr_context() | ast.Name():
            return
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            inner: list[ast.AST] = [*node.args]
        case ast.Call():
            raise ExpressionError(f"unknown function {ast.unparse(node.func)}; known: {listed(sorted(_FUNCTIONS))}")
        case ast.Dict() if not all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in node.keys):
            raise ExpressionError('the keys of an object must be texts: {"name": user.name}')
        case ast.BinOp() | ast.UnaryOp() | ast.Compare() if any(type(sign) not in _SIGNS for sign in _signs(node)):
            raise ExpressionError(f"unknown sign in {ast.unparse(node)}; known: {listed(_SIGNS.values())}")
        case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.BoolOp() | ast.IfExp() | ast.Attribute():
            inner = list(ast.iter_child_nodes(node))
        case ast.Subscript() | ast.List() | ast.Dict() if not isinstance(getattr(node, "slice", None), ast.Slice):
            inner = list(ast.iter_child_nodes(node))
        case ast.operator() | ast.unaryop() | ast.cmpop() | ast.boolop():
            return
        case _:
            raise ExpressionError(f"{_shown(node)} is not possible in an expression")
    for part in inner:
        _check(part, depth=depth + 1)


def _signs(node: ast.BinOp | ast.UnaryOp | ast.Compare) -> list[ast.AST]:
    return list(node.ops) if isinstance(node, ast.Compare) else [node.op]


def _shown(node: ast.AST) -> str:
    try:
        return ast.unparse(node)
    except Exception:  # noqa: BLE001 - it is only named
        return type(node).__name__


def _value(node: ast.expr, inputs: Mapping[str, JSONValue]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return inputs.get(name) if name in inputs or name not in _WORDS else _WORDS[name]
        case ast.Attribute(value=of, attr=key):
            return _member(_value(of, inputs), key)
        case ast.Subscript(value=of, slice=key):
            return _member(_value(of, inputs), _value(key, inputs))
        case ast.BoolOp(op=sign, values=parts):
            return _first(parts, inputs, holds=isinstance(sign, ast.Or))
        case ast.IfExp(test=test, body=yes, orelse=no):
            return _value(yes if _value(test, inputs) else no, inputs)
        case ast.List(elts=parts):
            return [_value(part, inputs) for part in parts]
        case ast.Dict(keys=keys, values=parts):
            return {_value(key, inputs): _value(part, inputs) for key, part in zip(keys, parts, strict=True) if key}
        case ast.Compare():
            return _compared(node, inputs)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return not _value(part, inputs)
        case ast.UnaryOp(operand=part):
            return -_number(_value(part, inputs), "-")
        case ast.BinOp(left=left, op=sign, right=right):
            return _calculated(type(sign), _value(left, inputs), _value(right, inputs))
        case ast.Call(func=ast.Name(id=name), args=parts):
            return _called(name, [_value(part, inputs) for part in parts])
    raise ExpressionError(f"{_shown(node)} is not possible in an expression")


def _first(parts: list[ast.expr], inputs: Mapping[str, JSONValue], *, holds: bool) -> Any:
    """Give the first value that decides an `or` (one that holds) or an `and` (one that does not), else the last."""
    value: Any = None
    for part in parts:
        value = _value(part, inputs)
        if bool(value) is holds:
            break
    return value


def _member(of: Any, key: Any) -> Any:
    """Give an object's key or an array's item, and null where there is none."""
    match of, key:
        case dict(), str():
            return of.get(key)
        case list(), int() if not isinstance(key, bool) and -len(of) <= key < len(of):
            return of[key]
    return None


def _compared(node: ast.Compare, inputs: Mapping[str, JSONValue]) -> bool:
    left = _value(node.left, inputs)
    for sign, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, inputs)
        if not _holds(type(sign), left, right):
            return False
        left = right
    return True


def _holds(sign: type[ast.AST], left: Any, right: Any) -> bool:
    if sign in (ast.Eq, ast.NotEq):
        return same(left, right) is (sign is ast.Eq)
    if sign in (ast.In, ast.NotIn):
        return _contains(right, left) is (sign is ast.In)
    both_numbers = _is_number(left) and _is_number(right)
    if not both_numbers and not (isinstance(left, str) and isinstance(right, str)):
        raise ExpressionError(f"can't compare {short(left)} with {short(right)}: two numbers or two texts are needed")
    return bool(_ORDERS[sign](left, right))


def same(left: JSONValue, right: JSONValue) -> bool:
    """Compare as JSON does, where true is not 1."""
    return bool(left == right) and isinstance(left, bool) is isinstance(right, bool)


def _contains(whole: Any, part: Any) -> bool:
    match whole:
        case str() if isinstance(part, str):
            return part in whole
        case list():
            return any(same(item, part) for item in whole)
        case dict():
            return part in whole if isinstance(part, str) else False
        case None:
            return False
    raise ExpressionError(f"can't look for {short(part)} in {short(whole)}: a text, an array or an object is needed")


def _calculated(sign: type[ast.AST], left: Any, right: Any) -> Any:
    if sign is ast.Add and isinstance(left, str) and isinstance(right, str):
        return _bounded_text(left + right)
    word = _SIGNS[sign]
    try:
        value = _CALCULATIONS[sign](_number(left, word), _number(right, word))
    except ZeroDivisionError:
        raise ExpressionError(f"{short(left)} {word} 0 has no value") from None
    return _bounded(value)


def _bounded(value: int | float) -> int | float:
    if not -_BIGGEST <= value <= _BIGGEST:  # also infinities; NaN is out as well
        raise ExpressionError("the number became too big")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any, word: str) -> Any:
    if not _is_number(value):
        raise ExpressionError(
            f"{word} needs numbers; given {short(value)}" + (" (use str(...) to join texts)" * (word == "+"))
        )
    return value


def _called(name: str, arguments: list[Any]) -> Any:
    try:
        return _FUNCTIONS[name](*arguments)
    except ExpressionError:
        raise
    except (TypeError, ValueError, OverflowError):
        given = ", ".join(map(short, arguments))
        raise ExpressionError(f"{name}({given}) has no value") from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _bounded_text(dumps(value))


def _bounded_text(text: str) -> str:
    if len(text) > _LONGEST:  # texts in texts in texts double their backslashes each time
        raise ExpressionError(f"the text became longer than {_LONGEST:,} characters")
    return text


def _as_number(value: str | float) -> int | float:
    if isinstance(value, str) and len(value) > 40:
        raise ExpressionError("number(...) takes a text of at most 40 characters")
    try:
        return _bounded(int(value) if isinstance(value, str) else value)
    except ValueError:
        return _bounded(float(value))


_SIGNS: Final[dict[type[ast.AST], str]] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%", ast.USub: "-", ast.Not: "not",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.In: "in",
    ast.NotIn: "not in",
}  # fmt: skip
_ORDERS: Final[Mapping[type[ast.AST], Callable[[Any, Any], Any]]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_CALCULATIONS: Final[Mapping[type[ast.AST], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}  # fmt: skip
_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "len": len,
    "str": _text,
    "number": _as_number,
    "lower": str.lower,
    "upper": str.upper,
    "trim": str.strip,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "abs": abs,
    "round": round,
    "min": min,
    "max": max,
}
