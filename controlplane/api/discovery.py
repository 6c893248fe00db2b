"""
/api and /apis: what is served, in the three forms that clients ask for.

Aggregated discovery (KEP-3352) in v2 and v2beta1, and the older lists of groups,
versions and resources, which kubectl still needs for drain and auth can-i.
Everything follows from the table of kinds.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from controlplane.objects.kinds import Kind, Kinds

AGGREGATED = {"v2": "apidiscovery.k8s.io/v2", "v2beta1": "apidiscovery.k8s.io/v2beta1"}

# What a subresource takes and gives, where that is not the kind itself: group, version, kind.
_SUBRESOURCE_KINDS: Mapping[str, tuple[str, str, str]] = {
    "scale": ("autoscaling", "v1", "Scale"),
    "eviction": ("policy", "v1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "binding": ("", "v1", "Binding"),
    "attach": ("", "v1", "PodAttachOptions"),
    "exec": ("", "v1", "PodExecOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
}
_SUBRESOURCE_VERBS: Mapping[str, tuple[str, ...]] = {
    "attach": ("create", "get"),
    "binding": ("create",),
    "eviction": ("create",),
    "exec": ("create", "get"),
    "finalize": ("update",),
    "log": ("get",),
    "portforward": ("create", "get"),
    "proxy": ("create", "delete", "get", "patch", "update"),
    "token": ("create",),
}
_READ_WRITE = ("get", "patch", "update")


def _subresource_kind(kind: Kind, subresource: str) -> tuple[str, str, str]:
    if subresource == "proxy":
        return ("", "v1", f"{kind.kind}ProxyOptions")
    return _SUBRESOURCE_KINDS.get(subresource, (kind.group, kind.version, kind.kind))


def _subresource_verbs(subresource: str) -> list[str]:
    return list(_SUBRESOURCE_VERBS.get(subresource, _READ_WRITE))


# Aggregated


def aggregated(
    kinds: Kinds, version: str, *, core: bool, others: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """``core``: of /api, else of /apis. ``others``: entries of aggregated API servers."""
    groups = [group for group in kinds.groups() if (group == "") is core]
    items = [_aggregated_group(kinds, group) for group in groups]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": AGGREGATED[version],
        "metadata": {},
        "items": items if core else [*items, *others],
    }


def _aggregated_group(kinds: Kinds, group: str) -> dict[str, Any]:
    return {
        "metadata": {"name": group, "creationTimestamp": None}
        if group
        else {"creationTimestamp": None},
        "versions": [
            {
                "version": version,
                "resources": [
                    _aggregated_resource(kind) for kind in _kinds_of(kinds, group, version)
                ],
                "freshness": "Current",
            }
            for version in kinds.versions(group)
        ],
    }


def _kinds_of(kinds: Kinds, group: str, version: str) -> list[Kind]:
    found = [kind for kind in kinds if kind.group == group and kind.version == version]
    return sorted(found, key=lambda kind: kind.plural)


def _aggregated_resource(kind: Kind) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": _gvk(kind.group, kind.version, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    if kind.subresources:
        resource["subresources"] = [
            {
                "subresource": name,
                "responseKind": _gvk(*_subresource_kind(kind, name)),
                "verbs": _subresource_verbs(name),
            }
            for name in sorted(kind.subresources)
        ]
    return resource


def _gvk(group: str, version: str, kind: str) -> dict[str, str]:
    return {"group": group, "version": version, "kind": kind}


# The older lists


def api_versions(address: str) -> dict[str, Any]:
    """/api; ``address``: host:port under which clients reach this server."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(kinds: Kinds, others: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """/apis"""
    groups = [api_group(kinds, group) for group in kinds.groups() if group]
    for other in others:
        versions = [entry["version"] for entry in other["versions"]]
        groups.append(_api_group(other["metadata"]["name"], versions))
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(kinds: Kinds, group: str) -> dict[str, Any]:
    """/apis/<group> without its own kind and apiVersion, as a list of groups holds it."""
    return _api_group(group, kinds.versions(group))


def _api_group(group: str, versions: Sequence[str]) -> dict[str, Any]:
    named = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": named, "preferredVersion": named[0]}


def resource_list(kinds: Kinds, group: str, version: str) -> dict[str, Any] | None:
    """/api/v1 and /apis/<group>/<version>; None where that is not served."""
    found = _kinds_of(kinds, group, version)
    if not found:
        return None
    resources: list[dict[str, Any]] = []
    for kind in found:
        resources.append(_resource(kind))
        resources += [_subresource(kind, name) for name in sorted(kind.subresources)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def _resource(kind: Kind) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    if "list" in kind.verbs:
        stored = kind.storage_version or kind.api_version
        digest = hashlib.sha256(f"{stored}/{kind.kind}".encode()).digest()[:8]
        resource["storageVersionHash"] = _base64(digest)
    return resource


def _subresource(kind: Kind, name: str) -> dict[str, Any]:
    group, version, of = _subresource_kind(kind, name)
    resource: dict[str, Any] = {
        "name": f"{kind.plural}/{name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": of,
        "verbs": _subresource_verbs(name),
    }
    if (group, version) != (kind.group, kind.version):
        resource |= {"group": group, "version": version}
    return resource


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def etag(document: Mapping[str, Any]) -> str:
    """Strong, for If-None-Match: clients keep what they have."""
    return etag_of(orjson.dumps(document))


def etag_of(document: bytes) -> str:
    return f'"{hashlib.sha256(document).hexdigest().upper()}"'
