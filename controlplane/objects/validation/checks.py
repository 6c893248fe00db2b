"""
The small rules that all kinds share; each yields what is wrong, or nothing.

Objects come decoded and defaulted: types are right and nulls are gone.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controlplane.objects import quantity
from controlplane.objects.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from controlplane.objects.validation import names

Object = Mapping[str, Any]
Found = Iterator[FieldError]

NON_NEGATIVE = "must be greater than or equal to 0"
IMMUTABLE = "field is immutable"
_MAX_INT32 = 2**31 - 1


def formed(form: names.Form, value: str, path: str) -> Found:
    for complaint in form(value):
        yield invalid_value(path, value, complaint)


def required_form(form: names.Form, value: str | None, path: str) -> Found:
    if value:
        yield from formed(form, value, path)
    else:
        yield required(path)


def present(value: object, path: str, detail: str = "") -> Found:
    if not value:
        yield required(path, detail)


def one_of(value: object, known: Iterable[str], path: str) -> Found:
    """``known`` in the order in which the API lists them: sorted."""
    listed = list(known)
    if value not in listed:
        yield not_supported(path, value if value is not None else "", listed)


def optional_one_of(value: object, known: Iterable[str], path: str) -> Found:
    if value not in (None, ""):
        yield from one_of(value, known, path)


def non_negative(value: int | None, path: str) -> Found:
    if value is not None and value < 0:
        yield invalid_value(path, value, NON_NEGATIVE)


def positive(value: int | None, path: str) -> Found:
    if value is not None and value <= 0:
        yield invalid_value(path, value, "must be greater than 0")


def in_range(value: int | None, low: int, high: int, path: str) -> Found:
    if value is not None and not low <= value <= high:
        yield invalid_value(path, value, names.out_of_range(low, high))


def port(value: int | None, path: str) -> Found:
    yield from in_range(value, 1, 65535, path)


def port_or_name(value: object, path: str) -> Found:
    if isinstance(value, str):
        yield from formed(names.port_name, value, path)
    elif isinstance(value, int):
        yield from port(value, path)
    else:
        yield required(path)


def deadline(value: int | None, path: str) -> Found:
    """Seconds that a pod may be active."""
    if value is not None and not 1 <= value <= _MAX_INT32:
        yield invalid_value(path, value, names.out_of_range(1, _MAX_INT32))


def unchanged(new: Object, old: Object, field: str, path: str) -> Found:
    """The field named, of two objects."""
    if new.get(field) != old.get(field):
        yield invalid_value(f"{path}.{field}", new.get(field), IMMUTABLE)


def unique(values: Iterable[tuple[str, object]]) -> Found:
    """Pairs of a path and a value; empty values are not compared."""
    seen: set[object] = set()
    for path, value in values:
        if value in seen:
            yield duplicate(path, value)
        elif value not in (None, ""):
            seen.add(value)


def too_long(path: str, limit: int) -> FieldError:
    return FieldError("FieldValueTooLong", path, f"Too long: may not be more than {limit} bytes")


def too_many(path: str, found: int, limit: int) -> FieldError:
    text = f"Too many: {found}: must have at most {limit} items"
    return FieldError("FieldValueTooMany", path, text)


def not_found(path: str, value: str) -> FieldError:
    return FieldError("FieldValueNotFound", path, f'Not found: "{value}"')


def amount(value: object, path: str) -> Found:
    """A quantity that is not negative."""
    if not isinstance(value, str | int | float) or not quantity.is_quantity(value):
        yield invalid_value(path, value, "must be a valid quantity")
    elif quantity.nanos(value) < 0:
        yield invalid_value(path, value, NON_NEGATIVE)


def ip_address(value: str, path: str) -> Found:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        yield invalid_value(
            path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        )


def endpoint_address(value: str, path: str) -> Found:
    """
    An address that a Service may lead to: nobody reaches a neighbour's metadata service by one.

    Loopback, which upstream refuses too, is let through: a server that is alone
    on its machine publishes itself so, and the kernel routes no packet there.
    """
    try:
        ip = ipaddress.ip_address(value)
    except ValueError:
        yield from ip_address(value, path)
        return
    if ip.is_unspecified:
        yield invalid_value(path, value, f"may not be unspecified ({value})")
    elif ip.is_link_local:
        detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
        yield invalid_value(path, value, detail)
    elif ip in _LINK_LOCAL_MULTICAST[ip.version]:
        detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        yield invalid_value(path, value, detail)


_LINK_LOCAL_MULTICAST: dict[int, ipaddress.IPv4Network | ipaddress.IPv6Network] = {
    4: ipaddress.ip_network("224.0.0.0/24"),
    6: ipaddress.ip_network("ff02::/16"),
}


def cidr(value: str, path: str) -> Found:
    try:
        ipaddress.ip_network(value, strict=False)
        valid = "/" in value
    except ValueError:
        valid = False
    if not valid:
        text = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        yield invalid_value(path, value, text)


def int_or_percent(value: object, path: str) -> Found:
    """A count that is not negative, or a percentage."""
    if isinstance(value, str):
        for _ in names.percent(value):
            text = "must be an integer or percentage (e.g '5%%')"
            yield invalid_value(path, value, text)
    elif isinstance(value, int):
        yield from non_negative(value, path)


def not_over_100_percent(value: object, path: str) -> Found:
    percent = value[:-1] if isinstance(value, str) and value.endswith("%") else ""
    if percent.isdigit() and int(percent) > 100:
        yield invalid_value(path, value, "must not be greater than 100%")


def is_zero(value: object) -> bool:
    """Of a count or a percentage."""
    return value in (0, "0%")


def exactly_one(found: Iterable[str], path: str, *, none: str, more: str) -> Found:
    """Of the members of a union that are set; every one after the first is too many."""
    listed = list(found)
    if not listed:
        yield required(path, none)
    for name in listed[1:]:
        yield forbidden_field(f"{path}.{name}", more)
