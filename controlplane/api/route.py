"""
From a URL path to what is asked for: resource requests and all others.

Parsed by hand and once: a table of a thousand routes would cost more than the
handler. The verb names are those of authorisation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from controlplane.api.call import as_bool

_VERBS = {
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
    "GET": "get",
    "HEAD": "get",
}


@dataclass(frozen=True, slots=True)
class Route:
    """``plural`` is "" for what is no resource request: then ``path`` says all."""

    path: str
    verb: str
    group: str = ""
    version: str = ""
    plural: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""  # behind pods/<name>/proxy


def parse(method: str, path: str, query: Mapping[str, str]) -> Route:
    """``path``: still percent-encoded, without the query; none, or a host, of a CONNECT."""
    if not path.startswith("/"):
        path = f"/{path}"
    parts = path.split("/")
    if "%" in path:
        parts = [unquote(part) for part in parts]
    match parts:
        case ["", "api", version, first, *more] if first:
            return _resource(Route(path, method), ("", version), [first, *more], query)
        case ["", "apis", group, version, first, *more] if first:
            return _resource(Route(path, method), (group, version), [first, *more], query)
    return Route(path, method.lower())


def _resource(
    asked: Route, version: tuple[str, str], parts: list[str], query: Mapping[str, str]
) -> Route:
    method, path = asked.verb, asked.path
    if parts[-1] == "" and len(parts) > 1 and "proxy" not in parts:
        parts = parts[:-1]
    legacy_watch = parts[0] == "watch" and len(parts) > 1
    if legacy_watch:
        parts = parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        # /namespaces/<name>/{status,finalize} are the namespace's own.
        if len(parts) > 2 and not (len(parts) == 3 and parts[2] in ("status", "finalize")):
            parts = parts[2:]
    plural, name, subresource = (*parts[:3], "", "")[:3]
    rest = "/".join(parts[3:])
    if len(parts) > 3 and subresource != "proxy":
        return Route(path, method.lower())
    verb = "watch" if legacy_watch and method == "GET" else _verb(method, name, query)
    if subresource == "proxy":
        verb = _VERBS.get(method, method.lower())
    return Route(path, verb, *version, plural, namespace, name, subresource, rest)


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    verb = _VERBS.get(method, method.lower())
    if verb == "get" and "watch" in query and as_bool(query["watch"]) and query["watch"] != "":
        # A watch of one object by its path is a watch, too.
        return "watch"
    if name:
        return verb
    return {"get": "list", "delete": "deletecollection"}.get(verb, verb)
