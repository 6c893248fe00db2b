"""Which of two versions is the newer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.update.version import Version, parse

IN_ORDER = (
    "v1.35.9+pinnace9",
    "v1.36.0-alpha.1+pinnace1",
    "v1.36.0-alpha.beta+pinnace1",
    "v1.36.0-rc.2+pinnace1",
    "v1.36.0-rc.11+pinnace1",
    "v1.36.0+pinnace1",
    "v1.36.0+pinnace2",
    "v1.36.0+pinnace10",
    "v1.36.3+pinnace1",
    "v1.100.0+pinnace1",
)

versions = st.builds(
    Version,
    st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)),
    st.lists(st.from_regex(r"[0-9a-z]{1,4}", fullmatch=True), max_size=3).map(tuple),
    st.integers(0, 99),
)


def test_versions_are_ordered_with_what_follows_the_plus() -> None:
    assert sorted(set(IN_ORDER), key=parse) == list(IN_ORDER)


@given(versions, versions, versions)
def test_the_order_is_total_and_transitive(a: Version, b: Version, c: Version) -> None:
    assert (a < b) + (b < a) + (a._key() == b._key()) == 1
    if a < b and b < c:
        assert a < c


@given(versions)
def test_a_version_reads_back_as_it_was_written(version: Version) -> None:
    assert parse(str(version)) == version


@pytest.mark.parametrize(
    "text", ["", "1.36", "v1.36.3+k3s1", "v1.36.3 ", "latest", "v1.36.3+pinnace"]
)
def test_what_is_no_version_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is no version such as"):
        parse(text)
