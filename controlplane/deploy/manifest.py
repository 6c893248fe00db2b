"""
The text of a manifest as objects: YAML or JSON, many documents, lists; variables of packaged ones.

Pure; numbers and times are read as Kubernetes reads them, which differs from PyYAML in that
a date is a string.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

_VARIABLE = re.compile(r"%\{([A-Z_]+)\}%")
# What other objects of the same file need goes first; the rest keeps its order.
_FIRST = ("Namespace", "CustomResourceDefinition")


class ParseError(Exception):
    """The text is not a manifest; the message says where."""


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc] # libyaml's loader where there is one
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        """Keys as JSON has them: ``404:`` is "404" and ``yes:`` is "true"."""
        found = super().construct_mapping(node, deep)
        return {_key(key): value for key, value in found.items()}


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return key if isinstance(key, str) else str(key)


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in _Base.yaml_implicit_resolvers.items()
}


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """``%{CLUSTER_DNS}%`` and others; an unknown one stays as it is."""
    return _VARIABLE.sub(lambda found: variables.get(found[1], found[0]), text)


def parse(data: bytes) -> list[dict[str, Any]]:
    """Raise :class:`ParseError` for what is no manifest; empty documents are left out."""
    try:
        text = data.decode("utf-8-sig")
        documents = list(yaml.load_all(text, Loader=_Loader))
    except (UnicodeDecodeError, yaml.YAMLError, ValueError) as err:
        raise ParseError(str(err)) from err
    objects = [item for document in documents if document for item in _expanded(document)]
    return sorted(objects, key=_rank)


def _expanded(document: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(document, dict):
        raise ParseError(f"a document is a {type(document).__name__}, not an object")
    if not isinstance(document.get("kind"), str) or not document["kind"]:
        raise ParseError("Object 'Kind' is missing")
    if not isinstance(document.get("apiVersion"), str) or not document["apiVersion"]:
        raise ParseError("Object 'apiVersion' is missing")
    if document["kind"].endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _expanded(item)
        return
    meta = document.get("metadata")
    if not isinstance(meta, dict) or not meta.get("name"):
        raise ParseError(f"{document['kind']}: metadata.name is missing")
    yield document


def _rank(item: Mapping[str, Any]) -> int:
    kind = item["kind"]
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)
