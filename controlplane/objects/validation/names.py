"""
What names, keys and values may look like: a function for each form, returning complaints.

The texts are the API machinery's, because people search for them. An empty
list means that the value is well-formed. Source: RFC 1035, RFC 1123, and the
API's "Object Names and IDs".
"""

import re
from collections.abc import Callable

Form = Callable[[str], list[str]]

LABEL = 63
SUBDOMAIN = 253

_DNS1123_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS1123_SUBDOMAIN = rf"{_DNS1123_LABEL}(\.{_DNS1123_LABEL})*"
_DNS1035_LABEL = "[a-z]([-a-z0-9]*[a-z0-9])?"
_UNDERSCORE_LABEL = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_UNDERSCORE_SUBDOMAIN = rf"{_UNDERSCORE_LABEL}(\.{_UNDERSCORE_LABEL})*"
_WILDCARD_SUBDOMAIN = rf"\*\.{_DNS1123_SUBDOMAIN}"
_NAME_PART = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_NAME_PART})?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_ENV_NAME = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_HTTP_HEADER = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"

_RE_LABEL = re.compile(_DNS1123_LABEL)
_RE_SUBDOMAIN = re.compile(_DNS1123_SUBDOMAIN)
_RE_1035 = re.compile(_DNS1035_LABEL)
_RE_UNDERSCORE = re.compile(_UNDERSCORE_SUBDOMAIN)
_RE_WILDCARD = re.compile(_WILDCARD_SUBDOMAIN)
_RE_NAME_PART = re.compile(_NAME_PART)
_RE_LABEL_VALUE = re.compile(_LABEL_VALUE)
_RE_CONFIG_KEY = re.compile(_CONFIG_KEY)
_RE_C_IDENTIFIER = re.compile(_C_IDENTIFIER)
_RE_HTTP_HEADER = re.compile(_HTTP_HEADER)
_RE_PERCENT = re.compile(_PERCENT)
_RE_PORT_NAME = re.compile("[-a-z0-9]+")
_RE_LETTER = re.compile("[a-z]")
_RE_RELAXED_ENV = re.compile("[ -<>-~]+")

_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
    "'-' or '.', and must start and end with an alphanumeric character"
)
_UNDERSCORE_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
    "'_', '-' or '.', and must start and end with an alphanumeric character"
)
_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character"
)
_WILDCARD_TEXT = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, "
    "which must consist of lower case alphanumeric characters, '-' or '.' and end with an "
    "alphanumeric character"
)
_NAME_PART_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_CONFIG_KEY_TEXT = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
_C_IDENTIFIER_TEXT = (
    "a valid C identifier must start with alphabetic character or '_', "
    "followed by a string of alphanumeric characters or '_'"
)
_RELAXED_ENV_TEXT = (
    "a valid environment variable name must consist only of printable ASCII characters "
    "other than '='"
)


def too_long(limit: int) -> str:
    return f"must be no more than {limit} characters"


def too_many_bytes(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def out_of_range(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


def mismatch(text: str, pattern: str, *examples: str) -> str:
    """The complaint about a value that does not match a regular expression."""
    if not examples:
        return f"{text} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {shown}regex used for validation is '{pattern}')"


def dns1123_label(value: str) -> list[str]:
    errors = [too_long(LABEL)] if len(value) > LABEL else []
    if not _RE_LABEL.fullmatch(value):
        if _RE_SUBDOMAIN.fullmatch(value):
            errors.append("must not contain dots")
        else:
            errors.append(mismatch(_LABEL_TEXT, _DNS1123_LABEL, "my-name", "123-abc"))
    return errors


def dns1123_subdomain(value: str) -> list[str]:
    errors = [too_long(SUBDOMAIN)] if len(value) > SUBDOMAIN else []
    if not _RE_SUBDOMAIN.fullmatch(value):
        errors.append(mismatch(_SUBDOMAIN_TEXT, _DNS1123_SUBDOMAIN, "example.com"))
    return errors


def dns1123_subdomain_with_underscore(value: str) -> list[str]:
    errors = [too_long(SUBDOMAIN)] if len(value) > SUBDOMAIN else []
    if not _RE_UNDERSCORE.fullmatch(value):
        errors.append(mismatch(_UNDERSCORE_TEXT, _UNDERSCORE_SUBDOMAIN, "example.com"))
    return errors


def dns1035_label(value: str) -> list[str]:
    errors = [too_long(LABEL)] if len(value) > LABEL else []
    if not _RE_1035.fullmatch(value):
        errors.append(mismatch(_1035_TEXT, _DNS1035_LABEL, "my-name", "abc-123"))
    return errors


def wildcard_subdomain(value: str) -> list[str]:
    errors = [too_long(SUBDOMAIN)] if len(value) > SUBDOMAIN else []
    if not _RE_WILDCARD.fullmatch(value):
        errors.append(mismatch(_WILDCARD_TEXT, _WILDCARD_SUBDOMAIN, "*.example.com"))
    return errors


def path_segment(value: str) -> list[str]:
    """What any object's name must be, so that it can stand in a URL; RBAC kinds ask no more."""
    if value in {".", ".."}:
        return [f"may not be '{value}'"]
    return [f"may not contain '{sign}'" for sign in ("/", "%") if sign in value]


def path_segment_prefix(value: str) -> list[str]:
    return [f"may not contain '{sign}'" for sign in ("/", "%") if sign in value]


def qualified_name(value: str) -> list[str]:
    """A label key, a finalizer, a resource name: ``[prefix/]name``."""
    errors: list[str] = []
    prefix, slash, name = value.rpartition("/")
    if "/" in prefix:
        text = mismatch(
            f"a valid label key {_NAME_PART_TEXT}",
            _NAME_PART,
            "MyName",
            "my.name",
            "123-abc",
        )
        return [text + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if slash:
        if not prefix:
            errors.append("prefix part must be non-empty")
        else:
            errors += [f"prefix part {text}" for text in dns1123_subdomain(prefix)]
    if not name:
        errors.append("name part must be non-empty")
    elif len(name) > LABEL:
        errors.append(f"name part {too_many_bytes(LABEL)}")
    if not _RE_NAME_PART.fullmatch(name):
        text = mismatch(_NAME_PART_TEXT, _NAME_PART, "MyName", "my.name", "123-abc")
        errors.append(f"name part {text}")
    return errors


def label_value(value: str) -> list[str]:
    errors = [too_many_bytes(LABEL)] if len(value) > LABEL else []
    if not _RE_LABEL_VALUE.fullmatch(value):
        errors.append(mismatch(_LABEL_VALUE_TEXT, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return errors


def port_name(value: str) -> list[str]:
    """An IANA service name."""
    errors = [too_long(15)] if len(value) > 15 else []
    if not _RE_PORT_NAME.fullmatch(value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _RE_LETTER.search(value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else [out_of_range(1, 65535)]


def user_id(value: int) -> list[str]:
    return [] if 0 <= value <= 2**31 - 1 else [out_of_range(0, 2**31 - 1)]


def percent(value: str) -> list[str]:
    if _RE_PERCENT.fullmatch(value):
        return []
    text = "a valid percent string must be a numeric string followed by an ending '%'"
    return [mismatch(text, _PERCENT, "1%", "93%")]


def http_header(value: str) -> list[str]:
    if _RE_HTTP_HEADER.fullmatch(value):
        return []
    text = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return [mismatch(text, _HTTP_HEADER, "X-Header-Name")]


def c_identifier(value: str) -> list[str]:
    if _RE_C_IDENTIFIER.fullmatch(value):
        return []
    return [
        mismatch(_C_IDENTIFIER_TEXT, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName"),
    ]


def env_name(value: str) -> list[str]:
    """Any printable ASCII but ``=``, as served since v1.32 (KEP-4369)."""
    if not value:
        return ["environment variable name must be non-empty"]
    return [] if _RE_RELAXED_ENV.fullmatch(value) else [_RELAXED_ENV_TEXT]


def config_key(value: str) -> list[str]:
    """A key of a ConfigMap or a Secret: it becomes the name of a file."""
    errors = [too_long(SUBDOMAIN)] if len(value) > SUBDOMAIN else []
    if not _RE_CONFIG_KEY.fullmatch(value):
        errors.append(mismatch(_CONFIG_KEY_TEXT, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    if value in {".", ".."}:
        errors.append(f"must not be '{value}'")
    elif value.startswith(".."):
        errors.append("must not start with '..'")
    return errors
