"""
Which objects of a kind a list or a watch is about, compiled once for each request.

The name, the namespace and a pod's node are read off the entry; labels are kept
beside its bytes; only other fields make an object be decoded.
"""

from collections.abc import Mapping

from controlplane.api.cache import ObjectCache
from controlplane.api.entry import Entry
from controlplane.objects import field_selectors, selectors
from controlplane.objects.errors import StatusError, bad_request
from controlplane.objects.kinds import Kind


class Matcher:
    """Immutable; ``across`` says that a namespaced kind is asked for in all namespaces."""

    __slots__ = (
        "_cache",
        "_fields",
        "_kind",
        "_labels",
        "_node",
        "_prefix",
        "across",
        "everything",
        "name",
    )

    def __init__(self, kind: Kind, cache: ObjectCache, namespace: str = "") -> None:
        self._kind = kind
        self._cache = cache
        self._prefix = kind.prefix(namespace if kind.namespaced else "")
        self._labels = selectors.EVERYTHING
        self._fields = field_selectors.FieldSelector()
        self._node: str | None = None
        self.across = kind.namespaced and not namespace
        self.name = ""
        self.everything = True

    def matches(self, entry: Entry) -> bool:
        """Whether an entry of this kind is selected; for watches also by its namespace."""
        if not entry.key.startswith(self._prefix):
            return False
        if self.everything:
            return True
        if self.name and entry.name != self.name:
            return False
        if self._node is not None and entry.node != self._node:
            return False
        if not self._labels.matches(entry.labels):
            return False
        if self._fields.empty:
            return True
        obj = self._cache.load_object(entry)
        return self._fields.matches(field_selectors.fields_of(self._kind, obj))


def compile_matcher(
    kind: Kind,
    cache: ObjectCache,
    namespace: str = "",
    query: Mapping[str, str] | None = None,
    *,
    name: str = "",
) -> Matcher:
    """
    ``query`` may hold labelSelector and fieldSelector; 400 for what cannot be read.

    ``name``: one object, as a watch by its path asks for it.
    """
    matcher = Matcher(kind, cache, namespace)
    labels = (query or {}).get("labelSelector", "")
    fields = (query or {}).get("fieldSelector", "")
    if labels:
        try:
            matcher._labels = selectors.parse(labels)
        except StatusError as error:
            raise bad_request(f'unable to parse "labelSelector": {error.message}') from None
    terms = list(field_selectors.parse(fields, kind).terms) if fields else []
    rest = []
    for term in terms:
        field, equal, value = term
        if field == "metadata.name" and equal and matcher.name in ("", value):
            matcher.name = value
        elif field == "spec.nodeName" and equal and kind.kind == "Pod" and matcher._node is None:
            matcher._node = value
        else:
            rest.append(term)
    if name:
        matcher.name = name
    matcher._fields = field_selectors.FieldSelector(tuple(rest))
    matcher.everything = not (terms or name) and matcher._labels.empty
    return matcher
