"""
The items of ``spec.healthChecks``: what is wrong with them, and as values. Pure.

Each has a name, a time limit, and one of http, tcp, exec, cel, pods. ``$(NODE_NAME)`` and
``$(NODE_IP)`` stand for the node that is upgraded in every text but the name of the check.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from operators.upgrade import queries
from operators.upgrade.fields import Fields

KINDS = ("http", "tcp", "exec", "cel", "pods")
MOST = 32
DEFAULT_SECONDS, MOST_SECONDS = 10, 300
NODE_NAME, NODE_IP = "$(NODE_NAME)", "$(NODE_IP)"
_SAMPLE_NAME, _SAMPLE_IP = "node-name", "192.0.2.1"
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
_VERSION = re.compile(r"([a-z0-9][-a-z0-9.]*/)?v[0-9][a-z0-9]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STATUS = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    url: str
    expected: tuple[tuple[int, int], ...]  # ranges of status codes, both ends included
    headers: tuple[tuple[str, str], ...]
    authorities: str  # PEM; "": those of this machine
    insecure: bool  # take any certificate
    contains: str  # must be in the body; "": the body is not read


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcp:
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    namespace: str
    selector: str  # as a URL has it
    container: str  # "": the pod's default
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cel:
    api_version: str
    kind: str
    namespace: str  # "": none, or all of them
    name: str  # "": those of the selector
    selector: str
    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    namespace: str
    selector: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    name: str
    seconds: float
    what: Http | Tcp | Exec | Cel | Pods


class CheckError(Exception):
    """Not a check; the text says which field and why, one line for each."""


def validate(items: Sequence[Any], path: str = "spec.healthChecks") -> list[str]:
    """
    What is wrong, a line for each field, ``<path>: <why>``; expressions are compiled.

    For when a plan is stored or seen for the first time: nothing is looked at.
    """
    errors: list[str] = []
    if len(items) > MOST:
        errors.append(f"{path}: at most {MOST} checks are possible")
    names: set[str] = set()
    for index, item in enumerate(items):
        place = f"{path}[{index}]"
        if not isinstance(item, Mapping):
            errors.append(f"{place}: must be an object")
            continue
        name = item.get("name")
        if isinstance(name, str) and name in names:
            errors.append(f"{place}.name: {name!r} is there twice")
        names.add(str(name))
        _read(Fields(substituted(item, name=_SAMPLE_NAME, ip=_SAMPLE_IP), place, errors))
    return errors


def parse(item: Mapping[str, Any]) -> Check:
    """Of an item after :func:`substituted`. Raises :class:`CheckError`."""
    errors: list[str] = []
    check = _read(Fields(item, "", errors), compiled=False)
    if errors or check is None:
        raise CheckError("\n".join(errors))
    return check


def names_address(items: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an address has to be looked up."""
    return any(NODE_IP in str(item) for item in items)


def substituted(item: Mapping[str, Any], *, name: str, ip: str) -> dict[str, Any]:
    """``ip`` in a URL is in brackets where it is one of IPv6."""
    found = {key: _put(value, name, ip) for key, value in item.items() if key != "name"}
    http = item.get("http")
    if ":" in ip and isinstance(http, Mapping) and isinstance(http.get("url"), str):
        found["http"]["url"] = _put(http["url"], name, f"[{ip}]")
    return ({"name": item["name"]} if "name" in item else {}) | found


def _put(value: Any, name: str, ip: str) -> Any:
    match value:
        case str():
            return value.replace(NODE_NAME, name).replace(NODE_IP, ip)
        case Mapping():
            return {key: _put(inner, name, ip) for key, inner in value.items()}
        case list() | tuple():
            return [_put(inner, name, ip) for inner in value]
        case _:
            return value


def _read(item: Fields, *, compiled: bool = True) -> Check | None:
    item.only("name", "timeoutSeconds", *KINDS)
    name = item.text("name", required=True)
    if name and not _SUBDOMAIN.fullmatch(name):
        item.wrong("name", f"{name!r} must be lower case letters, digits, '-' and '.'")
    seconds = item.number("timeoutSeconds", DEFAULT_SECONDS, low=1, high=MOST_SECONDS)
    kind = item.one_of(KINDS)
    fields = item.inside(kind) if kind else None
    if fields is None:
        return None
    what: Http | Tcp | Exec | Cel | Pods
    match kind:
        case "http":
            what = _http(fields)
        case "tcp":
            what = _tcp(fields)
        case "exec":
            what = _exec(fields)
        case "cel":
            what = _cel(fields, compiled=compiled)
        case _:
            what = _pods(fields)
    return Check(name=name, seconds=float(seconds or DEFAULT_SECONDS), what=what)


def _http(fields: Fields) -> Http:
    fields.only(
        *("url", "expectedStatus", "headers", "caBundle", "insecureSkipVerify", "bodyContains")
    )
    url = fields.text("url", required=True)
    if url:
        _check_url(fields, url)
    authorities, insecure = _authorities(fields), fields.flag("insecureSkipVerify")
    if authorities and insecure:
        fields.wrong("caBundle", "has no meaning with insecureSkipVerify")
    return Http(
        url=url,
        expected=_expected(fields),
        headers=_headers(fields),
        authorities=authorities,
        insecure=insecure,
        contains=fields.text("bodyContains"),
    )


def _check_url(fields: Fields, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError as err:
        fields.wrong("url", str(err))
        return
    if not good or re.search(r"[\s\x00-\x1f]", url):
        fields.wrong("url", f"{url!r} is no address such as http://host:8080/path")


def _expected(fields: Fields) -> tuple[tuple[int, int], ...]:
    found = []
    for item in fields.items("expectedStatus") or ("200-399",):
        text = str(item) if isinstance(item, str | int) and not isinstance(item, bool) else ""
        matched = _STATUS.fullmatch(text)
        low, high = (matched[1], matched[2] or matched[1]) if matched else ("0", "0")
        if not matched or int(low) > int(high):
            fields.wrong("expectedStatus", f"{item!r} is no status such as 200 or 200-399")
        found.append((int(low), int(high)))
    return tuple(found)


def _headers(fields: Fields) -> tuple[tuple[str, str], ...]:
    found = fields.inside("headers")
    if found is None:
        return ()
    for name, value in found.value.items():
        if not _HEADER.fullmatch(name):
            found.wrong(name, "is no name of a header")
        if not isinstance(value, str) or re.search(r"[\r\n\x00]", value):
            found.wrong(name, "must be one line of text")
    return tuple((name, str(value)) for name, value in found.value.items())


def _authorities(fields: Fields) -> str:
    """PEM as it is, or in base64 as elsewhere in the API."""
    given = fields.text("caBundle")
    if given and "-----BEGIN" not in given:
        try:
            given = base64.b64decode("".join(given.split()), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            given = "?"
    if given and "-----BEGIN CERTIFICATE-----" not in given:
        fields.wrong("caBundle", "holds no certificate (PEM, or PEM in base64)")
    return given


def _tcp(fields: Fields) -> Tcp:
    fields.only("host", "port")
    if fields.value.get("port") is None:
        fields.wrong("port", "is needed")
    port = fields.number("port", None, low=1, high=65535)
    host = fields.text("host", required=True).strip("[]")
    if host and re.search(r"[\s/]", host):
        fields.wrong("host", f"{host!r} is no name or address of a host")
    return Tcp(host=host, port=port or 0)


def _exec(fields: Fields) -> Exec:
    fields.only("namespace", "podSelector", "container", "command")
    command = fields.texts("command")
    if not command or not command[0]:
        fields.wrong("command", "is needed, as a list: a program and its arguments")
    return Exec(
        namespace=_namespace(fields, required=True),
        selector=_selector(fields, "podSelector"),
        container=fields.text("container"),
        command=command,
    )


def _cel(fields: Fields, *, compiled: bool) -> Cel:
    fields.only("apiVersion", "kind", "namespace", "name", "selector", "expression")
    version, kind = fields.text("apiVersion", required=True), fields.text("kind", required=True)
    if version and not _VERSION.fullmatch(version):
        fields.wrong("apiVersion", f"{version!r} is no version such as v1 or apps/v1")
    if kind and not re.fullmatch(r"[A-Z][A-Za-z0-9]*", kind):
        fields.wrong("kind", f"{kind!r} is no kind such as Deployment")
    which = fields.one_of(("name", "selector"))
    name = fields.text("name", required=which == "name")
    if name and re.search(r"[/%\s]", name):
        fields.wrong("name", f"{name!r} is no name of an object")
    expression = fields.text("expression", required=True)
    if compiled and expression:
        # Here, since what evaluates expressions is large and most plans have none.
        from operators.upgrade.checks.expression import problem

        if why := problem(expression, several=which == "selector"):
            fields.wrong("expression", why)
    return Cel(
        api_version=version,
        kind=kind,
        namespace=_namespace(fields),
        name=name,
        selector=_selector(fields, "selector") if which == "selector" else "",
        expression=expression,
    )


def _pods(fields: Fields) -> Pods:
    fields.only("namespace", "selector")
    return Pods(namespace=_namespace(fields, required=True), selector=_selector(fields, "selector"))


def _namespace(fields: Fields, *, required: bool = False) -> str:
    found = fields.text("namespace", required=required)
    if found and not _LABEL.fullmatch(found):
        fields.wrong("namespace", f"{found!r} is no name of a namespace")
    return found


def _selector(fields: Fields, name: str) -> str:
    """One that is empty selects everything, and is given on purpose; one that misses is not."""
    if fields.value.get(name) is None:
        fields.wrong(name, "is needed ({} for all)")
        return ""
    before = len(fields.errors)
    if (found := fields.inside(name)) is None:
        return ""
    queries.check(found)
    return queries.text(found.value) if len(fields.errors) == before else ""
