"""
The RBAC objects that must exist, and putting them right at each start.

As upstream, an administrator's additions stay: what is missing is added, what
is extra is kept, and an object whose ``autoupdate`` annotation says "false" is
left alone. A start that finds everything right writes nothing.
"""

import asyncio
import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from controlplane.api.rbac import GROUP, CompiledRule, aggregate, compiled, covers
from controlplane.client.base import Client, Object, Reads
from controlplane.objects import meta
from controlplane.objects.kinds import CORE, Resource
from controlplane.objects.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
)

_POLICY = Path(__file__).parent / "policy"
_ROLE_FILES = ("cluster-roles", "controller-roles", "roles", "pinnace-roles")
_CONTROLLER = "system:controller:"
_AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"

Wanted = tuple[Resource, dict[str, Any]]


async def ensure_policy(client: Client, reads: Reads) -> None:
    """Roles before bindings; their namespaces must exist already."""
    roles, bindings = policy()
    await _ensure(client, reads, [w for w in roles if "aggregationRule" not in w[1]])
    # Aggregated ones feed each other (view into edit into admin), so one after the other.
    for resource, body in reversed([w for w in roles if "aggregationRule" in w[1]]):
        if reads.get(resource, "", meta.name(body)) is None:
            rules = aggregate(body, reads.list(CLUSTER_ROLES))
            body = body | {"rules": [dict(rule) for rule in rules]}
        await _ensure(client, reads, [(resource, body)])
    await _ensure(client, reads, bindings)


async def _ensure(client: Client, reads: Reads, wanted: Iterable[Wanted]) -> None:
    # All at once: the store commits those that arrive together in one transaction.
    async with asyncio.TaskGroup() as tasks:
        for resource, body in wanted:
            seen = reads.get(resource, meta.namespace(body), meta.name(body))
            if seen is None:
                tasks.create_task(client.create(resource, body))
            elif meta.annotations(seen).get(_AUTOUPDATE) == "false":
                continue
            elif "roleRef" in body and not _same_role(seen, body):
                tasks.create_task(_recreate(client, resource, body))
            else:
                repaired = repair(seen, body)
                if repaired is not None:
                    tasks.create_task(client.update(resource, repaired))


async def _recreate(client: Client, resource: Resource, body: Object) -> None:
    """A binding's role cannot be changed."""
    await client.delete(resource, meta.namespace(body), meta.name(body))
    await client.create(resource, body)


def _same_role(seen: Object, wanted: Object) -> bool:
    return all(seen["roleRef"][key] == wanted["roleRef"][key] for key in ("kind", "name"))


def repair(seen: Object, wanted: Object) -> dict[str, Any] | None:
    """``seen`` with everything of ``wanted`` in it; None: it has it already."""
    repaired = copy.deepcopy(dict(seen))
    metadata = repaired["metadata"]
    for field in ("labels", "annotations"):
        metadata[field] = {**(metadata.get(field) or {}), **wanted["metadata"][field]}
    if "aggregationRule" in wanted:
        _add(repaired.setdefault("aggregationRule", {}), "clusterRoleSelectors", wanted)
    elif "rules" in wanted:
        owned = tuple(compiled(seen.get("rules") or ()))
        missing = [rule for rule in wanted["rules"] if not covers(owned, rule)]
        if missing:
            repaired["rules"] = [*(seen.get("rules") or ()), *missing]
    elif missing := [s for s in wanted.get("subjects", ()) if not _has_subject(seen, s)]:
        repaired["subjects"] = [*(seen.get("subjects") or ()), *missing]
    return None if repaired == seen else repaired


def _add(rule: dict[str, Any], field: str, wanted: Object) -> None:
    present = rule.get(field) or []
    missing = [s for s in wanted["aggregationRule"][field] if s not in present]
    if missing:
        rule[field] = [*present, *missing]


def _has_subject(binding: Object, subject: Mapping[str, str]) -> bool:
    keys = ("kind", "name", "namespace")
    return any(
        all(other.get(key, "") == subject.get(key, "") for key in keys)
        for other in binding.get("subjects") or ()
    )


# --- the data ---


def policy() -> tuple[list[Wanted], list[Wanted]]:
    """Roles and bindings, as they are created."""
    roles = [_role(name, entry) for file in _ROLE_FILES for name, entry in _load(file).items()]
    bindings = [_binding(name, entry) for name, entry in _load("bindings").items()]
    bindings += [_controller_binding(name) for name in _load("controller-roles")]
    return roles, bindings


def node_rules() -> tuple[CompiledRule, ...]:
    """Those of the ClusterRole ``system:node``, for the node authorizer."""
    _, body = _role("system:node", _load("cluster-roles")["system:node"])
    return tuple(compiled(body["rules"]))


def _load(file: str) -> dict[str, dict[str, Any]]:
    # Ten times faster; missing where PyYAML was built without libyaml.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with (_POLICY / f"{file}.yaml").open("rb") as stream:
        loaded: dict[str, dict[str, Any]] = yaml.load(stream, Loader=loader)
    return loaded


def _role(name: str, entry: Mapping[str, Any]) -> Wanted:
    targets = entry.get("aggregate-to", "")
    labels = {f"{_AGGREGATE}{target}": "true" for target in targets.split(",") if target}
    body = _object("Role", name, labels)
    if "aggregates" in entry:
        selector = {"matchLabels": {f"{_AGGREGATE}{entry['aggregates']}": "true"}}
        body["aggregationRule"] = {"clusterRoleSelectors": [selector]}
        body["rules"] = []
    else:
        body["rules"] = [_rule(line) for line in entry["rules"]]
    return (ROLES if "namespace" in body["metadata"] else CLUSTER_ROLES), body


def _rule(line: str) -> dict[str, Any]:
    verbs, groups, resources, *names = line.split()
    rule: dict[str, Any] = {"verbs": verbs.split(",")}
    if groups == "url":
        return rule | {"nonResourceURLs": resources.split(",")}
    rule["apiGroups"] = ["" if group == CORE else group for group in groups.split(",")]
    rule["resources"] = resources.split(",")
    if names:
        rule["resourceNames"] = names[0].split(",")
    return rule


def _binding(name: str, entry: Mapping[str, Any]) -> Wanted:
    kind, role = entry["role"].split()
    return _bound(name, kind, role, [_subject(subject) for subject in entry["subjects"]])


def _controller_binding(role: str) -> Wanted:
    account = f"ServiceAccount kube-system/{role.removeprefix(_CONTROLLER)}"
    return _bound(role, "ClusterRole", role, [_subject(account)])


def _bound(name: str, kind: str, role: str, subjects: Sequence[Mapping[str, str]]) -> Wanted:
    body = _object("RoleBinding", name, {})
    body["roleRef"] = {"apiGroup": GROUP, "kind": kind, "name": role}
    if subjects:
        body["subjects"] = list(subjects)
    namespaced = "namespace" in body["metadata"]
    return (ROLE_BINDINGS if namespaced else CLUSTER_ROLE_BINDINGS), body


def _subject(text: str) -> dict[str, str]:
    kind, name = text.split()
    if kind == "ServiceAccount":
        namespace, _, name = name.partition("/")
        return {"kind": kind, "name": name, "namespace": namespace}
    return {"apiGroup": GROUP, "kind": kind, "name": name}


def _object(kind: str, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """``name``: namespace/name where it has a namespace."""
    namespace, _, name = name.rpartition("/")
    metadata: dict[str, Any] = {
        "name": name,
        "labels": {**_LABELS, **labels},
        "annotations": {_AUTOUPDATE: "true"},
    }
    if namespace:
        metadata["namespace"] = namespace
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": kind if namespace else f"Cluster{kind}",
        "metadata": metadata,
    }
