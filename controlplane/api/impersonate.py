"""
Acting as somebody else: the Impersonate-* headers.

Each name, group, uid and extra value that a request wants to act under is
authorised on its own, as the verb ``impersonate``.
"""

from collections.abc import Iterator
from urllib.parse import unquote

from multidict import CIMultiDictProxy

from controlplane.api.authorize import forbidden_error
from controlplane.api.base import (
    ANONYMOUS,
    AUTHENTICATED_GROUP,
    UNAUTHENTICATED_GROUP,
    Attributes,
    Authorizer,
    Decision,
    User,
)
from controlplane.objects.errors import bad_request

_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"


def impersonated(
    headers: "CIMultiDictProxy[str]", user: User, authorizer: Authorizer | None
) -> User:
    """The user that the request acts as; 403 where ``user`` may not."""
    name = headers.get("Impersonate-User", "")
    groups = tuple(headers.getall("Impersonate-Group", ()))
    uid = headers.get("Impersonate-Uid", "")
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in headers.items():
        if header.lower().startswith(_EXTRA):
            key = unquote(header[len(_EXTRA) :].lower())
            extra[key] = (*extra.get(key, ()), value)
    if not name:
        if groups or uid or extra:
            raise bad_request("requested impersonation without impersonating a user")
        return user
    if authorizer is not None:
        for attributes in _asked(user, name, groups, uid, extra):
            decision, reason = authorizer.authorize(attributes)
            if decision is not Decision.ALLOW:
                raise forbidden_error(attributes, reason)
    return User(name=name, uid=uid, groups=_groups(name, groups), extra=extra)


def _asked(  # noqa: PLR0917 - the parts of a user
    user: User,
    name: str,
    groups: tuple[str, ...],
    uid: str,
    extra: dict[str, tuple[str, ...]],
) -> Iterator[Attributes]:
    if name.startswith(_ACCOUNT) and name.count(":") == 3:
        _, _, namespace, account = name.split(":")
        yield Attributes(
            user=user,
            verb="impersonate",
            version="v1",
            resource="serviceaccounts",
            namespace=namespace,
            name=account,
        )
    else:
        yield Attributes(user=user, verb="impersonate", version="v1", resource="users", name=name)
    for group in groups:
        yield Attributes(user=user, verb="impersonate", version="v1", resource="groups", name=group)
    api = {"group": "authentication.k8s.io", "version": "v1"}
    if uid:
        yield Attributes(user=user, verb="impersonate", resource="uids", name=uid, **api)
    for key, values in extra.items():
        for value in values:
            yield Attributes(
                user=user,
                verb="impersonate",
                resource="userextras",
                subresource=key,
                name=value,
                **api,
            )


def _groups(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    if name == ANONYMOUS:
        return groups if UNAUTHENTICATED_GROUP in groups else (*groups, UNAUTHENTICATED_GROUP)
    if name.startswith(_ACCOUNT) and name.count(":") == 3 and not groups:
        namespace = name.split(":")[2]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return groups if AUTHENTICATED_GROUP in groups else (*groups, AUTHENTICATED_GROUP)
