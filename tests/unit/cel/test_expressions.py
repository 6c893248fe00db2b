"""Expressions and their values; each was compared with what upstream's evaluator says."""

from typing import Any

import pytest

from controlplane.objects.cel.evaluate import CompileError, compile_expression
from controlplane.objects.cel.syntax import CelSyntaxError
from controlplane.objects.cel.values import CelError

VALUES: dict[str, Any] = {
    "self": {"a": 1, "l": [1, 2, 3], "s": "hello", "m": {"x": 1, "y": 2}, "d": "1h"},
    "object": {"metadata": {"name": "n", "labels": {"a": "b"}}},
}
NAMES = frozenset(VALUES)


def value(text: str) -> Any:
    return compile_expression(text, NAMES).evaluate(VALUES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3 == 7", True),
        ("self.l.all(x, x > 0)", True),
        ("self.l.exists(x, x > 5)", False),
        ("self.l.exists_one(x, x == 2)", True),
        ("self.l.map(x, x * 2) == [2,4,6]", True),
        ("self.l.filter(x, x > 1)", [2, 3]),
        ("self.m.all(k, self.m[k] > 0)", True),
        ("has(self.a) && !has(self.zz)", True),
        ("self.zz == 1 || true", True),
        ("true || self.zz == 1", True),
        ("self.s.startsWith('he') && self.s.size() == 5", True),
        ("size(self.s)", 5),
        ("'a' in self.m || 'x' in self.m", True),
        ("duration(self.d) == duration('60m')", True),
        (
            "timestamp('2024-01-01T00:00:00Z') < timestamp('2024-01-01T00:30:00Z')",
            True,
        ),
        ("string(timestamp('2024-01-01T00:00:00.5Z'))", "2024-01-01T00:00:00.5Z"),
        ("quantity('1Gi').isGreaterThan(quantity('1G'))", True),
        ("quantity('500m').add(quantity('500m')).compareTo(quantity('1')) == 0", True),
        ("ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3')", True),
        ("url('https://a.b:80/x?q=1').getHostname()", "a.b"),
        ("'a,b'.split(',')", ["a", "b"]),
        ("'%s is %d'.format(['x', 3])", "x is 3"),
        ("type(1) == int && type(1.0) == double", True),
        ("-9223372036854775808", -9223372036854775808),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("1.0 / 0.0", "inf"),
        ("1 == 1.0 && 1u == 1", True),
        ("[1, 2] + [3]", [1, 2, 3]),
        ("{'a': 1}.a", 1),
        ("object.?metadata.?labels.?a.orValue('z')", "b"),
        ("object.?spec.orValue(3)", 3),
        ("optional.of(3).value()", 3),
        ("sets.contains([1,2],[1])", True),
        ("math.greatest(1,2,3)", 3),
        ("[3,1,2].sort()", [1, 2, 3]),
        ("[1,2,3].sum()", 6),
        ("semver('1.2.3').isLessThan(semver('1.10.0'))", True),
        ("'abc'.matches('^a.c$')", True),
        ("'abc'.find('b.')", "bc"),
        ("int('42') + 1", 43),
        ("double('1.5')", 1.5),
        ("bool('true') ? 'y' : 'n'", "y"),
        ("[1,2,3].map(x, x > 1, x * 10)", [20, 30]),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v + 1)", {"a": 2, "b": 3}),
        ("[[1,2],[3]].flatten()", [1, 2, 3]),
        ("b'abc' == bytes('abc')", True),
        ("'\\u00e9' == 'é'", True),
        ("!format.dns1123Label().validate('ABC').hasValue()", False),
        ("[1,2,3].exists(x, x / 0 > 1 || x == 3)", True),
    ],
)
def test_an_expression_has_a_value(text: str, expected: Any) -> None:
    found = value(text)
    assert (str(found) if isinstance(expected, str) else found) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9223372036854775807 + 1", "integer overflow"),
        ("1 / 0", "division by zero"),
        ("self.nope", "no such key: nope"),
        ("1 + 'a'", "no such overload"),
        ("self.l[7]", "index out of bounds: 7"),
        ("duration('x')", 'invalid duration "x"'),
        ("optional.none().value()", "optional.none() dereference"),
        ("[1].exists(x, x / 0 > 1)", "division by zero"),
        ("self.a ? 1 : 2", "no such overload"),
        ("self.a.startsWith('x')", "no such overload"),
    ],
)
def test_what_has_no_value_says_why(text: str, expected: str) -> None:
    with pytest.raises(CelError) as caught:
        value(text)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nope", "<input>:1:1: undeclared reference to 'nope' (in container '')"),
        ("self.a + nope.b", "<input>:1:10: undeclared reference to 'nope'"),
        ("foo(1)", "undeclared reference to 'foo'"),
        ("'x'.nope()", "undeclared reference to 'nope'"),
        ("'x'.startsWith()", "found no matching overload for 'startsWith'"),
        ("has(self)", "invalid argument to has() macro"),
        ("self.l.all(x + 1, true)", "argument must be a simple name"),
        ("1 +", "mismatched input '<EOF>'"),
        ("self.", "expecting IDENTIFIER"),
        ("... ", "Syntax error"),
        ("'open", "token recognition error"),
        ("9223372036854775808", "invalid int literal"),
        ("for", "reserved identifier: for"),
        ("(" * 500, "recursion limit exceeded"),
    ],
)
def test_what_is_no_expression_says_where(text: str, words: str) -> None:
    with pytest.raises((CelSyntaxError, CompileError)) as caught:
        compile_expression(text, NAMES)
    assert words in str(caught.value)


def test_the_rest_decides_where_a_part_has_no_value() -> None:
    assert value("self.zz == 1 || true") is True
    assert value("false && self.zz == 1") is False
    assert value("[0, 1].exists(x, 1 / x == 1)") is True
    assert value("[0, 1].all(x, 1 / x == 2)") is False


def test_a_macro_hides_no_variable_for_longer_than_it_runs() -> None:
    assert value("self.l.all(self, self > 0) && self.a == 1") is True
    assert value("self.l.map(x, self.l.map(y, x * y)) == [[1, 2, 3], [2, 4, 6], [3, 6, 9]]") is True


def test_an_expression_cannot_run_for_long() -> None:
    numbers = ", ".join(map(str, range(100)))
    text = f"[{numbers}].all(a, [{numbers}].all(b, [{numbers}].all(c, [{numbers}].all(d, true))))"
    with pytest.raises(CelError, match="actual cost limit exceeded"):
        value(text)
    # Nor does anything take that for an unknown value.
    with pytest.raises(CelError, match="actual cost limit exceeded"):
        value(f"({text}) || true")
