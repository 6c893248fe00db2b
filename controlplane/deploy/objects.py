"""
The objects of one AddOn in the API: apply them, remember them, prune what is no longer there.

Each carries a label that names its AddOn, so what a file once held is found again by its
kinds (kept in an annotation of the AddOn) and that label. Names are those K3s uses.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.client.base import Client, Object, PatchType, Selection
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kind, Kinds

NAMESPACE = "kube-system"  # of AddOns
HASH_LABEL = "objectset.rio.cattle.io/hash"
KEEP_LABEL = "objectset.rio.cattle.io/prune"  # "false": stays when its file or AddOn goes
_OWNER = "objectset.rio.cattle.io/owner-"
GVKS = "addon.k3s.cattle.io/gvks"

Gvk = tuple[str, str]  # apiVersion, kind


class ApplyFailed(Exception):
    """Some objects could not be applied; the message names each with its reason."""


def set_hash(addon: str) -> str:
    text = f"k3s.cattle.io/v1, Kind=Addon {NAMESPACE}/{addon}"
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def gvks_of(objects: Iterable[Object]) -> list[Gvk]:
    return sorted({(item["apiVersion"], item["kind"]) for item in objects})


def format_gvks(gvks: Iterable[Gvk]) -> str:
    """``apps/v1, Kind=Deployment;/v1, Kind=Service``."""
    return ";".join(
        f"{version if '/' in version else '/' + version}, Kind={kind}" for version, kind in gvks
    )


def parse_gvks(text: str) -> list[Gvk]:
    found = []
    for part in text.split(";"):
        version, separator, kind = part.partition(", Kind=")
        if separator:
            found.append((version.removeprefix("/"), kind))
    return found


@dataclass(frozen=True, slots=True)
class Objects:
    """Applies as one field manager; ``kinds`` are those served now."""

    client: Client
    kinds: Kinds
    manager: str  # deploy@<node>

    async def apply(self, addon: str, objects: Sequence[Object]) -> None:
        """Server-side apply of all; tries each before it raises :class:`ApplyFailed`."""
        problems = []
        for item in objects:
            try:
                await self._apply_one(addon, item)
            except StatusError as err:
                problems.append(f"{item['kind']} {_called(item)}: {err.message}")
        if problems:
            raise ApplyFailed("; ".join(problems))

    async def _apply_one(self, addon: str, item: Object) -> None:
        kind = self._kind(item["apiVersion"], item["kind"])
        body = _owned(addon, item, kind)
        meta = body["metadata"]
        made = await self.client.patch(
            kind.resource,
            meta.get("namespace", ""),
            meta["name"],
            body=body,
            type=PatchType.APPLY,
            options={"fieldManager": self.manager, "force": "true"},
        )
        if made["metadata"].get("deletionTimestamp"):
            # Applied to what is about to go, it would be missing afterwards.
            raise StatusError(409, "Conflict", "it is being deleted, and made anew after that")

    def _kind(self, api_version: str, name: str) -> Kind:
        kind = self.kinds.by_kind(api_version, name)
        if kind is None:
            text = f'no matches for kind "{name}" in version "{api_version}"'
            raise StatusError(404, "NotFound", text)
        return kind

    async def prune(
        self, addon: str, gvks: Iterable[Gvk], keep: Sequence[Object] = ()
    ) -> list[str]:
        """
        Delete the AddOn's objects of these kinds that are not to be kept; their names.

        Not those whose label says that they stay.
        """
        kept = set()
        for item in keep:
            kind = self.kinds.by_kind(item["apiVersion"], item["kind"])
            if kind is not None:
                meta = _owned(addon, item, kind)["metadata"]
                kept.add((kind.group_kind, meta.get("namespace", ""), meta["name"]))
        gone = []
        for api_version, name in gvks:
            kind = self.kinds.by_kind(api_version, name)
            if kind is not None:  # with its CRD its objects went too
                gone += await self._prune_kind(addon, kind, kept)
        return gone

    async def _prune_kind(self, addon: str, kind: Kind, kept: set[Any]) -> list[str]:
        selection = Selection(labels=f"{HASH_LABEL}={set_hash(addon)}")
        listed = await self.client.list(kind.resource, selection)
        gone = []
        for item in listed.items:
            meta = item["metadata"]
            namespace = meta.get("namespace", "")
            if (kind.group_kind, namespace, meta["name"]) in kept or _stays(meta):
                continue
            options = {
                "propagationPolicy": "Background",
                "preconditions": {"uid": meta["uid"]},
            }
            try:
                await self.client.delete(kind.resource, namespace, meta["name"], options=options)
            except StatusError as err:
                if err.code not in (404, 409):
                    raise
            gone.append(f"{kind.kind} {_called(item)}")
        return gone


def _stays(meta: Object) -> bool:
    return str((meta.get("labels") or {}).get(KEEP_LABEL, "")).lower() in {"false", "f", "0"}


def _called(item: Object) -> str:
    meta = item["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def _owned(addon: str, item: Object, kind: Kind) -> dict[str, Any]:
    """The object with the AddOn's mark, and with a namespace where its kind needs one."""
    meta = dict(item["metadata"])
    if kind.namespaced:
        meta.setdefault("namespace", "default")
    else:
        meta.pop("namespace", None)
    meta["labels"] = {**(meta.get("labels") or {}), HASH_LABEL: set_hash(addon)}
    mark: Mapping[str, str] = {
        f"{_OWNER}gvk": "k3s.cattle.io/v1, Kind=Addon",
        f"{_OWNER}name": addon,
        f"{_OWNER}namespace": NAMESPACE,
    }
    meta["annotations"] = {**(meta.get("annotations") or {}), **mark}
    return {**item, "metadata": meta}
