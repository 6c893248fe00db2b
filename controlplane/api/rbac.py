"""
Role-based access control over an index of bindings that changes keep up to date.

Bindings are indexed by subject, so a decision looks only at what was given to
the user and the user's groups; what a user may do in a namespace is remembered
until any role or binding changes. Decisions are pure: no I/O, no clock.

Source: the RBAC API documentation; texts as kube-apiserver's, which
``kubectl auth can-i`` and audit readers show.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.api.base import (
    Attributes,
    Decision,
    NonResourceRule,
    ResourceRule,
    Rule,
    User,
)
from controlplane.client.base import Change, Feed, Object
from controlplane.objects import meta, selectors
from controlplane.objects.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
)

GROUP = "rbac.authorization.k8s.io"

ALL = "*"
_NOBODY = User(name="")
_REMEMBERED = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRule:
    """One PolicyRule, ready to match; empty ``names`` means any name."""

    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]  # with subresources: pods/log, */scale
    names: frozenset[str]
    urls: tuple[str, ...]

    def allows(self, asked: Attributes) -> bool:
        if asked.verb not in self.verbs and ALL not in self.verbs:
            return False
        if asked.path:
            return any(_url_matches(url, asked.path) for url in self.urls)
        return (
            (asked.group in self.groups or ALL in self.groups)
            and self._has_resource(asked.resource, asked.subresource)
            and (not self.names or asked.name in self.names)
        )

    def _has_resource(self, resource: str, subresource: str) -> bool:
        if ALL in self.resources:
            return True
        if not subresource:
            return resource in self.resources
        return f"{resource}/{subresource}" in self.resources or f"*/{subresource}" in self.resources


def _url_matches(url: str, path: str) -> bool:
    if url in {ALL, path}:
        return True
    return url.endswith(ALL) and path.startswith(url.rstrip(ALL))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Binding:
    """A (Cluster)RoleBinding as far as a decision needs it."""

    namespace: str  # "": a ClusterRoleBinding
    name: str
    subjects: Mapping[str, str]  # as the index names them → as reasons describe them
    role: tuple[str, str]  # namespace ("": a ClusterRole) and name


@dataclass(frozen=True, slots=True)
class _Grant:
    binding: _Binding
    subject: str  # as reasons describe it
    rules: tuple[CompiledRule, ...]


class Rbac:
    """
    An :class:`~controlplane.api.base.Authorizer`.

    Its mutable state is the index, changed by the feed only, and the grants
    remembered for each user, which any change empties.
    """

    def __init__(self, feed: Feed) -> None:
        self._roles: dict[tuple[str, str], tuple[CompiledRule, ...]] = {}
        self._bindings: dict[tuple[str, str], _Binding] = {}
        self._by_subject: dict[str, dict[tuple[str, str], _Binding]] = {}
        self._grants: dict[tuple[str, tuple[str, ...], str], tuple[_Grant, ...]] = {}
        resources = (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)
        self._unsubscribe = feed.subscribe(resources, self._changed)

    def close(self) -> None:
        self._unsubscribe()

    def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        namespace = "" if attributes.path else attributes.namespace
        for grant in self._granted(attributes.user, namespace):
            for rule in grant.rules:
                if rule.allows(attributes):
                    return Decision.ALLOW, _reason(grant)
        return Decision.NO_OPINION, self._missing_roles(attributes.user, namespace)

    def rules(self, user: User, namespace: str) -> Iterable[Rule]:
        for grant in self._granted(user, namespace):
            for rule in grant.rules:
                yield from _shown(rule)

    def holds(self, user: User, namespace: str, rule: Mapping[str, Any]) -> bool:
        """Whether the user has every right in a PolicyRule; nobody may hand out more."""
        owned = [rule for grant in self._granted(user, namespace) for rule in grant.rules]
        return covers(owned, rule)

    def _granted(self, user: User, namespace: str) -> tuple[_Grant, ...]:
        key = (user.name, user.groups, namespace)
        grants = self._grants.get(key)
        if grants is None:
            if len(self._grants) >= _REMEMBERED:
                self._grants.clear()
            grants = self._grants[key] = tuple(self._collect(user, namespace))
        return grants

    def _collect(self, user: User, namespace: str) -> Iterator[_Grant]:
        # Cluster-wide ones first, as reasons name the first that allows.
        for where in ("", namespace) if namespace else ("",):
            for subject, binding in self._bound(user):
                if binding.namespace == where and binding.role in self._roles:
                    yield _Grant(binding, binding.subjects[subject], self._roles[binding.role])

    def _bound(self, user: User) -> Iterator[tuple[str, _Binding]]:
        for subject in (f"User {user.name}", *(f"Group {group}" for group in user.groups)):
            for binding in self._by_subject.get(subject, {}).values():
                yield subject, binding

    def _missing_roles(self, user: User, namespace: str) -> str:
        missing = dict.fromkeys(
            _not_found(binding.role)
            for _, binding in self._bound(user)
            if binding.namespace in {"", namespace} and binding.role not in self._roles
        )
        if not missing:
            return ""
        texts = list(missing)
        return f"RBAC: {texts[0] if len(texts) == 1 else '[' + ', '.join(texts) + ']'}"

    def _changed(self, change: Change) -> None:
        self._grants.clear()
        key = (change.namespace, change.name)
        new = change.new
        if change.resource.plural in {"roles", "clusterroles"}:
            if new is None:
                self._roles.pop(key, None)
            else:
                self._roles[key] = tuple(compiled(new.get("rules") or ()))
            return
        old = self._bindings.pop(key, None)
        if old is not None:
            self._unindex(key, old)
        if new is not None:
            self._index(key, _binding(change.namespace, change.name, new))

    def _index(self, key: tuple[str, str], binding: _Binding) -> None:
        self._bindings[key] = binding
        for subject in binding.subjects:
            self._by_subject.setdefault(subject, {})[key] = binding

    def _unindex(self, key: tuple[str, str], binding: _Binding) -> None:
        for subject in binding.subjects:
            bindings = self._by_subject[subject]
            del bindings[key]
            if not bindings:
                del self._by_subject[subject]


def compiled(rules: Iterable[Mapping[str, Any]]) -> Iterator[CompiledRule]:
    for rule in rules:
        yield CompiledRule(
            verbs=frozenset(rule.get("verbs") or ()),
            groups=frozenset(rule.get("apiGroups") or ()),
            resources=frozenset(rule.get("resources") or ()),
            names=frozenset(rule.get("resourceNames") or ()),
            urls=tuple(rule.get("nonResourceURLs") or ()),
        )


def _binding(namespace: str, name: str, obj: Object) -> _Binding:
    reference = obj["roleRef"]
    return _Binding(
        namespace=namespace,
        name=name,
        subjects=dict(_subject(s, namespace) for s in obj.get("subjects") or ()),
        role=("" if reference["kind"] == "ClusterRole" else namespace, reference["name"]),
    )


def _subject(subject: Mapping[str, str], namespace: str) -> tuple[str, str]:
    kind, name = subject["kind"], subject["name"]
    if kind != "ServiceAccount":
        return f"{kind} {name}", f'{kind} "{name}"'
    namespace = subject.get("namespace") or namespace
    index = f"User system:serviceaccount:{namespace}:{name}"
    return index, f'{kind} "{name}/{namespace}"'


def _reason(grant: _Grant) -> str:
    binding = grant.binding
    role_namespace, role = binding.role
    role_kind = "Role" if role_namespace else "ClusterRole"
    if binding.namespace:
        bound = f'RoleBinding "{binding.name}/{binding.namespace}"'
    else:
        bound = f'ClusterRoleBinding "{binding.name}"'
    return f'RBAC: allowed by {bound} of {role_kind} "{role}" to {grant.subject}'


def _not_found(role: tuple[str, str]) -> str:
    namespace, name = role
    return f'{"role" if namespace else "clusterrole"}.{GROUP} "{name}" not found'


def _shown(rule: CompiledRule) -> Iterator[Rule]:
    if rule.resources:
        yield ResourceRule(
            verbs=tuple(sorted(rule.verbs)),
            api_groups=tuple(sorted(rule.groups)),
            resources=tuple(sorted(rule.resources)),
            resource_names=tuple(sorted(rule.names)),
        )
    if rule.urls:
        yield NonResourceRule(verbs=tuple(sorted(rule.verbs)), urls=rule.urls)


def covers(owned: Sequence[CompiledRule], rule: Mapping[str, Any]) -> bool:
    """Whether all rights of a PolicyRule are among those of ``owned``."""
    return all(any(mine.allows(asked) for mine in owned) for asked in _single_rights(rule))


def _single_rights(rule: Mapping[str, Any]) -> Iterator[Attributes]:
    """A rule taken apart; ``*`` stands for itself, so only ``*`` can cover it."""
    for verb in rule.get("verbs") or ():
        for url in rule.get("nonResourceURLs") or ():
            yield Attributes(user=_NOBODY, verb=verb, path=url)
        targets = itertools.product(
            rule.get("apiGroups") or (),
            rule.get("resources") or (),
            rule.get("resourceNames") or ("",),
        )
        for group, resource, name in targets:
            plural, _, subresource = resource.partition("/")
            yield Attributes(
                user=_NOBODY,
                verb=verb,
                group=group,
                resource=plural,
                subresource=subresource,
                name=name,
            )


def aggregate(role: Object, roles: Sequence[Object]) -> list[Mapping[str, Any]]:
    """
    The rules of a ClusterRole with an ``aggregationRule``: those of all it selects.

    ``roles``: all ClusterRoles, in the order of their names. Equal rules are kept
    once; the role itself is never counted in.
    """
    found: list[Mapping[str, Any]] = []
    for selector in _selectors(role):
        for other in roles:
            if meta.name(other) == meta.name(role) or not selector.matches(meta.labels(other)):
                continue
            found += [rule for rule in other.get("rules") or () if rule not in found]
    return found


def _selectors(role: Object) -> Sequence[selectors.Selector]:
    rule = role.get("aggregationRule") or {}
    return [selectors.of_object(s) for s in rule.get("clusterRoleSelectors") or ()]
