"""From the text of an expression to its tree. Source: the grammar in cel-spec's langdef."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LONGEST = 256 * 1024  # characters
_DEEPEST = 50  # levels of nesting; each takes about ten of Python

_QUOTED = (
    r"""(?:'{3}(?:[^\\]|\\.)*?'{3}|"{3}(?:[^\\]|\\.)*?"{3}"""
    r"""|'(?:[^'\\\r\n]|\\.)*'|"(?:[^"\\\r\n]|\\.)*")"""
)
_UNESCAPED = r"""(?:'{3}.*?'{3}|"{3}.*?"{3}|'[^'\r\n]*'|"[^"\r\n]*")"""
TOKEN = re.compile(
    rf"""
    (?P<space>[ \t\r\n\f]+|//[^\n]*)
  | (?P<raw>(?:[bB][rR]|[rR][bB]?){_UNESCAPED})
  | (?P<bytes>[bB]{_QUOTED})
  | (?P<string>{_QUOTED})
  | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
  | (?P<uint>(?:0x[0-9a-fA-F]+|\d+)[uU])
  | (?P<int>0x[0-9a-fA-F]+|\d+)
  | (?P<name>[_a-zA-Z][_a-zA-Z0-9]*)
  | (?P<quoted>`[a-zA-Z0-9_.\-/\ ]+`)
  | (?P<op>&&|\|\||<=|>=|==|!=|[-+*/%!<>?:.,()\[\]{{}}])
    """,
    re.VERBOSE | re.DOTALL,
)
_RESERVED = frozenset(
    "as break const continue else for function if import let loop package namespace return var "
    "void while".split()
)
_SIMPLE = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?",
}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"`?])|x([0-9a-fA-F]{2})|X([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.?))",
    re.DOTALL,
)


class CelSyntaxError(Exception):
    """The text is no expression. The message says where: ``<input>:1:5: Syntax error: …``."""


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any


@dataclass(frozen=True, slots=True)
class UintLiteral:
    value: int


@dataclass(frozen=True, slots=True)
class Name:
    name: str  # a leading dot means: from the outermost scope
    at: int


@dataclass(frozen=True, slots=True)
class Select:
    operand: "Node"
    field: str
    test: bool  # within has()
    at: int
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    operand: "Node"
    index: "Node"
    at: int
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    function: str  # operators as _+_, !_, _[_]
    target: "Node | None"
    arguments: "tuple[Node, ...]"
    at: int


@dataclass(frozen=True, slots=True)
class ListOf:
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class MapOf:
    entries: "tuple[tuple[Node, Node], ...]"


@dataclass(frozen=True, slots=True)
class Message:
    """``Object{field: value}``, as mutations make it."""

    type: str
    fields: "tuple[tuple[str, Node], ...]"
    at: int


@dataclass(frozen=True, slots=True)
class Macro:
    """``range.all(x, body)`` and its like; ``second`` is the index or value variable of two."""

    name: str
    range: "Node"
    variable: str
    second: str
    arguments: "tuple[Node, ...]"
    at: int


Node = (
    Literal | UintLiteral | Name | Select | Index | Call | ListOf | MapOf | Message | Macro
)  # fmt: skip

# Macros by name and number of arguments, and whether the number of variables is two.
_MACROS = {
    ("all", 2): 1, ("all", 3): 2, ("exists", 2): 1, ("exists", 3): 2,
    ("exists_one", 2): 1, ("existsOne", 2): 1, ("existsOne", 3): 2, ("exists_one", 3): 2,
    ("map", 2): 1, ("map", 3): 1, ("filter", 2): 1,
    ("transformList", 3): 2, ("transformList", 4): 2,
    ("transformMap", 3): 2, ("transformMap", 4): 2,
    ("sortBy", 2): 1,
}  # fmt: skip
_RELATIONS = ("<", "<=", ">=", ">", "==", "!=", "in")


def parse(text: str) -> Node:
    """Raises :class:`CelSyntaxError`."""
    if len(text) > _LONGEST:
        raise CelSyntaxError(f"expression code point size exceeds limit: {len(text)} > {_LONGEST}")
    return _Parser(text).whole()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise _error(text, at, f"token recognition error at: '{text[at]}'")
        kind = found.lastgroup or ""
        if kind != "space":
            yield _Token(kind, found.group(), at)
        at = found.end()
    yield _Token("end", "<EOF>", at)


def _error(text: str, at: int, why: str) -> CelSyntaxError:
    line = text.count("\n", 0, at)
    column = at - (text.rfind("\n", 0, at) + 1)
    return CelSyntaxError(f"ERROR: <input>:{line + 1}:{column + 1}: Syntax error: {why}")


class _Parser:
    """Recursive descent. Its mutable state is where it stands and how deep."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def whole(self) -> Node:
        tree = self._expression()
        if self._peek.kind != "end":
            raise self._unexpected("<EOF>")
        return tree

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _is(self, *texts: str) -> bool:
        token = self._peek
        return token.text in texts and token.kind in ("op", "name")

    def _accept(self, text: str) -> bool:
        if self._is(text):
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._unexpected(f"'{text}'")

    def _unexpected(self, wanted: str) -> CelSyntaxError:
        token = self._peek
        return _error(self._text, token.at, f"mismatched input '{token.text}' expecting {wanted}")

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _error(self._text, self._peek.at, "expression recursion limit exceeded")
        condition = self._or()
        if self._is("?"):
            at = self._take().at
            then = self._or()
            self._expect(":")
            condition = Call("_?_:_", None, (condition, then, self._expression()), at)
        self._depth -= 1
        return condition

    def _or(self) -> Node:
        left = self._and()
        while self._is("||"):
            at = self._take().at
            left = Call("_||_", None, (left, self._and()), at)
        return left

    def _and(self) -> Node:
        left = self._relation()
        while self._is("&&"):
            at = self._take().at
            left = Call("_&&_", None, (left, self._relation()), at)
        return left

    def _relation(self) -> Node:
        left = self._sum()
        while self._is(*_RELATIONS):
            token = self._take()
            name = "@in" if token.text == "in" else f"_{token.text}_"
            left = Call(name, None, (left, self._sum()), token.at)
        return left

    def _sum(self) -> Node:
        left = self._product()
        while self._is("+", "-"):
            token = self._take()
            left = Call(f"_{token.text}_", None, (left, self._product()), token.at)
        return left

    def _product(self) -> Node:
        left = self._unary()
        while self._is("*", "/", "%"):
            token = self._take()
            left = Call(f"_{token.text}_", None, (left, self._unary()), token.at)
        return left

    def _unary(self) -> Node:
        if not self._is("!", "-"):
            return self._member()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _error(self._text, self._peek.at, "expression recursion limit exceeded")
        token = self._take()
        following = self._peek
        if token.text == "-" and following.kind in ("int", "float"):
            # -9223372036854775808 is a number, though its positive is none.
            self._next += 1
            made: Node = self._member_of(Literal(self._number(following, -1)))
        else:
            made = Call(f"{token.text}_", None, (self._unary(),), token.at)
        self._depth -= 1
        return made

    def _member(self) -> Node:
        return self._member_of(self._primary())

    def _member_of(self, node: Node) -> Node:
        while True:
            if self._is("."):
                at = self._take().at
                node = self._dotted(node, at)
            elif self._is("["):
                at = self._take().at
                optional = self._accept("?")
                index = self._expression()
                self._expect("]")
                node = Index(node, index, at, optional)
            elif self._is("{") and (name := qualified(node)):
                node = self._message(name)
            else:
                return node

    def _dotted(self, node: Node, at: int) -> Node:
        optional = self._accept("?")
        token = self._take()
        if token.kind == "quoted":
            return Select(node, token.text[1:-1], False, at, optional)
        if token.kind != "name":
            self._next -= 1
            raise self._unexpected("IDENTIFIER")
        if optional or not self._accept("("):
            return Select(node, token.text, False, at, optional)
        arguments = self._arguments(")")
        return self._macro(token, node, arguments) or Call(
            token.text, node, tuple(arguments), token.at
        )

    def _arguments(self, end: str) -> list[Node]:
        found: list[Node] = []
        while not self._accept(end):
            if found:
                self._expect(",")
                if end != ")" and self._accept(end):  # a trailing comma
                    break
            found.append(self._expression())
        return found

    def _macro(self, token: _Token, node: Node, arguments: list[Node]) -> Node | None:
        variables = _MACROS.get((token.text, len(arguments)))
        if variables is None:
            return None
        names = []
        for argument in arguments[:variables]:
            if not isinstance(argument, Name):
                if token.text == "map" or variables == 2:
                    return None
                raise _error(self._text, token.at, "argument must be a simple name")
            names.append(argument.name)
        second = names[1] if variables == 2 else ""
        rest = tuple(arguments[variables:])
        return Macro(token.text, node, names[0], second, rest, token.at)

    def _primary(self) -> Node:
        token = self._take()
        match token.kind:
            case "int" | "float":
                return Literal(self._number(token, 1))
            case "uint":
                value = int(token.text[:-1], 0)
                if value >= 1 << 64:
                    raise _error(self._text, token.at, "invalid uint literal")
                return UintLiteral(value)
            case "string" | "raw" | "bytes":
                return Literal(self._string(token))
            case "name":
                return self._named(token, "")
            case _:
                return self._bracketed(token)

    def _bracketed(self, token: _Token) -> Node:
        match token.text:
            case "(":
                inner = self._expression()
                self._expect(")")
                return inner
            case "[":
                return ListOf(tuple(self._arguments("]")))
            case "{":
                return self._map()
            case ".":
                return self._named(self._take(), ".")
            case _:
                self._next -= 1
                raise self._unexpected("an expression")

    def _named(self, token: _Token, dot: str) -> Node:
        if token.kind != "name" or token.text in _RESERVED:
            text = f"reserved identifier: {token.text}"
            raise _error(self._text, token.at, text)
        constants = {"true": True, "false": False, "null": None}
        if token.text in constants and not dot:
            return Literal(constants[token.text])
        if self._accept("("):
            arguments = self._arguments(")")
            if token.text == "has" and not dot:
                return self._has(token, arguments)
            return Call(token.text, None, tuple(arguments), token.at)
        return Name(dot + token.text, token.at)

    def _has(self, token: _Token, arguments: list[Node]) -> Node:
        match arguments:
            case [Select() as field]:
                return Select(field.operand, field.field, True, field.at)
            case _:
                raise _error(self._text, token.at, "invalid argument to has() macro")

    def _map(self) -> Node:
        entries: list[tuple[Node, Node]] = []
        while not self._accept("}"):
            if entries:
                self._expect(",")
                if self._accept("}"):
                    break
            key = self._expression()
            self._expect(":")
            entries.append((key, self._expression()))
        return MapOf(tuple(entries))

    def _message(self, name: str) -> Node:
        at = self._take().at
        fields: list[tuple[str, Node]] = []
        while not self._accept("}"):
            if fields:
                self._expect(",")
                if self._accept("}"):
                    break
            token = self._take()
            if token.kind not in ("name", "quoted"):
                self._next -= 1
                raise self._unexpected("IDENTIFIER")
            self._expect(":")
            fields.append((token.text.strip("`"), self._expression()))
        return Message(name, tuple(fields), at)

    def _number(self, token: _Token, sign: int) -> int | float:
        if token.kind == "float":
            return sign * float(token.text)
        value = sign * int(token.text, 0) if token.text[:2] == "0x" else sign * int(token.text)
        if not -(1 << 63) <= value < 1 << 63:
            raise _error(self._text, token.at, "invalid int literal")
        return value

    def _string(self, token: _Token) -> str | bytes:
        text, raw, binary = token.text, False, False
        while text[0] not in "'\"":
            raw, binary = raw or text[0] in "rR", binary or text[0] in "bB"
            text = text[1:]
        width = 3 if text[:3] in ("'''", '"""') and len(text) >= 6 else 1
        text = text[width:-width]
        if binary:
            return text.encode() if raw else self._bytes(text, token.at)
        return text if raw else _ESCAPE.sub(lambda found: self._character(found, token.at), text)

    def _character(self, found: "re.Match[str]", at: int) -> str:
        simple, x, upper_x, short, long, octal, other = found.groups()
        if simple:
            return _SIMPLE[simple]
        if other is not None:
            raise _error(self._text, at, f"token recognition error at: '{found.group()}'")
        number = int(octal, 8) if octal else int(x or upper_x or short or long, 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise _error(self._text, at, "illegal Unicode code point")
        return chr(number)

    def _bytes(self, text: str, at: int) -> bytes:
        parts, last = [], 0
        for found in _ESCAPE.finditer(text):
            parts.append(text[last : found.start()].encode())
            _, x, upper_x, short, long, octal, _ = found.groups()
            if short or long:
                raise _error(self._text, at, "\\u and \\U are no escapes of bytes")
            byte = x or upper_x
            single = bytes([int(byte, 16) if byte else int(octal, 8)]) if byte or octal else b""
            parts.append(single or self._character(found, at).encode())
            last = found.end()
        return b"".join([*parts, text[last:].encode()])


def qualified(node: Node) -> str:
    """The name that a chain of selections spells; "": it is none."""
    match node:
        case Name(name, _):
            return name
        case Select(operand, field, False, _, False):
            prefix = qualified(operand)
            return f"{prefix}.{field}" if prefix else ""
        case _:
            return ""
