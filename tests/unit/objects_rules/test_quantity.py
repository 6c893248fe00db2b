import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.objects import quantity


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("0", "0"),
        ("0Gi", "0"),
        ("1024Mi", "1Gi"),
        ("1000", "1k"),
        ("1500", "1500"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        ("0.5Gi", "512Mi"),
        ("1.1Ki", "1126400m"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("12e6", "12e6"),
        ("12E3", "12E3"),
        ("1e1", "10"),
        ("12000e3", "12e6"),
        ("1E", "1E"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("512Ki", "512Ki"),
        ("1.500", "1.500"),
        ("0.500", "500m"),
        ("100000Ei", "9223372036854775807"),
        (2, "2"),
        (1.5, "1500m"),
        ("1023", "1023"),
        ("0.001Ki", "1024m"),
        ("-1Gi", "-1Gi"),
        ("128974848", "128974848"),
        ("123Mi", "123Mi"),
        ("1m", "1m"),
    ],
)
def test_canonical_text_is_the_one_the_api_gives_back(written: str | float, canonical: str) -> None:
    assert quantity.canonical(written) == canonical


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "abc", "1x", "1 Gi", "1e", "Gi", "--1", "1e999999999", "1mi"]
)
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(quantity.QuantityError):
        quantity.parse(text)
    assert not quantity.is_quantity(text)


def test_values_are_rounded_up() -> None:
    assert quantity.value("1500m") == 2
    assert quantity.value("-1500m") == -2
    assert quantity.milli("1u") == 1
    assert quantity.milli("1.5") == 1500
    assert quantity.value("1Gi") == 2**30


def test_notations_compare_by_amount() -> None:
    assert quantity.compare("1Gi", "1G") > 0
    assert quantity.compare("1000m", "1") == 0
    assert quantity.compare("1", "1k") < 0


def test_sums_keep_the_notation_of_the_first_that_is_not_zero() -> None:
    assert quantity.add("1Gi", "1Gi") == "2Gi"
    assert quantity.add("0", "64Mi") == "64Mi"
    assert quantity.add("500m", "600m") == "1100m"
    assert quantity.subtract("1", "250m") == "750m"
    assert quantity.total(["0", "1Mi", "1Mi"]) == "2Mi"
    assert quantity.total([]) == "0"


@given(
    st.integers(-(10**21), 10**21), st.sampled_from(["BinarySI", "DecimalSI", "DecimalExponent"])
)
def test_the_canonical_text_means_the_same_amount(nanos: int, form: str) -> None:
    text = str(quantity.Quantity(nanos, form))
    assert quantity.parse(text).nanos == nanos
    again = quantity.canonical(text)  # a binary amount may lose its notation, once
    assert quantity.canonical(again) == again
