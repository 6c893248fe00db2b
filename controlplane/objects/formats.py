"""
The string formats that a custom resource's schema may ask for.

A format that is not known is not checked, as OpenAPI has it. Source: the list
of supported formats in the apiextensions documentation.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from typing import Any
from urllib.parse import urlsplit

HEX = "[0-9a-fA-F]"
PATTERNS = {
    "uuid": rf"{HEX}{{8}}-?{HEX}{{4}}-?{HEX}{{4}}-?{HEX}{{4}}-?{HEX}{{12}}",
    "uuid3": rf"{HEX}{{8}}-?{HEX}{{4}}-?3{HEX}{{3}}-?{HEX}{{4}}-?{HEX}{{12}}",
    "uuid4": rf"{HEX}{{8}}-?{HEX}{{4}}-?4{HEX}{{3}}-?[89abAB]{HEX}{{3}}-?{HEX}{{12}}",
    "uuid5": rf"{HEX}{{8}}-?{HEX}{{4}}-?5{HEX}{{3}}-?[89abAB]{HEX}{{3}}-?{HEX}{{12}}",
    "mac": rf"({HEX}{{2}}[:-]){{5}}{HEX}{{2}}",
    "date": r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
    "date-time": (
        r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[Tt ]"
        r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]\d\d:?\d\d)"
    ),
    "duration": r"[-+]?(\d+(\.\d*)?|\.\d+)\s*(ns|us|µs|ms|s|m|h|d|w)"
    r"((\d+(\.\d*)?|\.\d+)\s*(ns|us|µs|ms|s|m|h|d|w))*|0",
    "hostname": r"(?=.{1,253}\.?$)[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?"
    r"(\.[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?)*\.?",
    "email": r"[^@\s<>]+@[^@\s<>]+",
    "bsonobjectid": rf"{HEX}{{24}}",
    "hexcolor": rf"#?({HEX}{{3}}|{HEX}{{6}})",
}
COMPILED = {name: re.compile(text) for name, text in PATTERNS.items()}
INTEGERS = {"int32": 2**31, "int64": 2**63}


def _address(version: int) -> Callable[[str], bool]:
    return lambda text: ip_address(text).version == version


def _network(text: str) -> bool:
    return "/" in text and ip_interface(text) is not None


CHECKS: dict[str, Callable[[str], bool]] = {
    "ipv4": _address(4),
    "ipv6": _address(6),
    "cidr": _network,
    "uri": lambda text: bool(urlsplit(text).scheme) or text.startswith("/"),
    "byte": lambda text: b64decode(text, validate=True) is not None,
}


def matches(name: str, value: Any) -> bool:
    """Whether a string or number has the format; true where the format is unknown."""
    if name in INTEGERS:
        return isinstance(value, int | float) and -INTEGERS[name] <= value < INTEGERS[name]
    if not isinstance(value, str):
        return True
    if name in COMPILED:
        return COMPILED[name].fullmatch(value) is not None
    check = CHECKS.get(name)
    if check is None:
        return True
    try:
        return check(value)
    except (ValueError, binascii.Error):
        return False
