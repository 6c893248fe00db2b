"""
GET and LIST: from the cache, or from the store's history when an older state is asked for.

A list that is cut by ``limit`` goes on at exactly the revision of its first
part: the continue token carries both. Once the store has forgotten that
revision the client gets 410 and a token with which it may go on inconsistently,
in upstream's form.
"""

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.api.call import Call, Parts
from controlplane.api.encoding import splice
from controlplane.api.entry import Entry
from controlplane.api.selection import Matcher
from controlplane.objects.errors import (
    FieldError,
    StatusError,
    bad_request,
    forbidden_field,
    invalid,
    not_found,
)
from controlplane.store.base import Compacted, FutureRevision

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can "
    "start a new list without the continue parameter, or use the continue token in this response "
    "to retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)
_TOKEN_SECONDS = 300  # as long as etcd behind kube-apiserver keeps history, whatever we keep
_FRESH_SECONDS = 3.0  # how long a read waits for a revision that has not been reached


class ContinueExpired(StatusError):
    """410 with a token for going on inconsistently."""

    def __init__(self, token: str) -> None:
        super().__init__(410, "Expired", _TOO_OLD)
        self.token = token

    def body(self) -> dict[str, Any]:
        return super().body() | {"metadata": {"continue": self.token}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    limit: int = 0
    continue_: str = ""
    resource_version: str = ""
    match: str = ""  # Exact, NotOlderThan


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: ``remaining`` is None where it is not known."""

    revision: int
    entries: Sequence[Entry]
    continue_: str = ""
    remaining: int | None = None

    def metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {"resourceVersion": str(self.revision)}
        if self.continue_:
            metadata["continue"] = self.continue_
            if self.remaining is not None:
                metadata["remainingItemCount"] = self.remaining
        return metadata


def list_options(query: Mapping[str, str]) -> ListOptions:
    """400 or 422 for combinations that make no sense, as upstream refuses them."""
    options = ListOptions(
        limit=max(0, number(query, "limit")),
        continue_=query.get("continue", ""),
        resource_version=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
    )
    errors: list[FieldError] = []
    if options.match:
        errors += _match_errors(options)
    if options.continue_ and options.resource_version not in ("", "0"):
        raise bad_request("specifying resource version is not allowed when using continue")
    if errors:
        raise invalid("ListOptions.meta.k8s.io", "", errors)
    return options


def _match_errors(options: ListOptions) -> list[FieldError]:
    field = "resourceVersionMatch"
    why = ""
    if not options.resource_version:
        why = "resourceVersionMatch is forbidden unless resourceVersion is provided"
    elif options.continue_:
        why = "resourceVersionMatch is forbidden when continue is provided"
    elif options.match not in ("Exact", "NotOlderThan"):
        message = f'Unsupported value: "{options.match}": supported values: "Exact", "NotOlderThan"'
        return [FieldError("FieldValueNotSupported", field, message)]
    elif options.match == "Exact" and options.resource_version == "0":
        why = 'resourceVersionMatch "Exact" is forbidden for resourceVersion "0"'
    return [forbidden_field(field, why)] if why else []


def number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def revision_of(text: str) -> int:
    """A resourceVersion as a number; 400 for what is none."""
    if not text.isdecimal():
        raise invalid(
            "ListOptions.meta.k8s.io",
            "",
            [FieldError("FieldValueInvalid", "resourceVersion", f'Invalid value: "{text}"')],
        )
    return int(text)


async def get(parts: Parts, call: Call, resource_version: str = "") -> Entry:
    if resource_version not in ("", "0"):
        await fresh(parts, revision_of(resource_version))
    entry = parts.cache.entry(call.key)
    if entry is None:
        raise not_found(call.kind.group_resource, call.name)
    return entry


async def fresh(parts: Parts, revision: int) -> None:
    """Wait until the cache has reached a revision that somebody has seen elsewhere."""
    if revision <= parts.cache.revision:
        return
    try:
        async with asyncio.timeout(_FRESH_SECONDS):
            await parts.cache.wait_for(revision)
    except TimeoutError:
        raise too_large(revision, parts.cache.revision) from None


def too_large(revision: int, current: int) -> StatusError:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {revision}, current: {current}",
        details={"causes": [cause], "retryAfterSeconds": 1},
        headers={"Retry-After": "1"},
    )


async def list_page(parts: Parts, call: Call, matcher: Matcher, options: ListOptions) -> Page:
    """One page of a list. The entries are in the order of their keys."""
    prefix = call.kind.prefix(call.namespace if call.kind.namespaced else "")
    revision, start = 0, ""
    if options.continue_:
        revision, start = _read_token(options.continue_, prefix, _now(parts))
    elif options.resource_version not in ("", "0"):
        asked = revision_of(options.resource_version)
        await fresh(parts, asked)
        if options.match == "Exact" or (options.limit and not options.match):
            revision = asked
    limit = 0 if options.resource_version == "0" and not options.continue_ else options.limit
    if revision > 0 and revision < parts.cache.bucket(prefix).changed:
        return await _past_page(parts, prefix, matcher, _Cut(revision, start, limit, _now(parts)))
    shown = revision if revision > 0 else parts.cache.revision
    cut = _Cut(shown, start, limit, _now(parts))
    return _present_page(parts, prefix, matcher, cut)


@dataclass(frozen=True, slots=True)
class _Cut:
    revision: int
    start: str
    limit: int
    now: int  # Unix time, for the token


def _present_page(parts: Parts, prefix: str, matcher: Matcher, cut: _Cut) -> Page:
    if matcher.name:
        entry = parts.cache.entry(prefix + matcher.name) if not matcher.across else None
        if entry is not None or not matcher.across:
            found = [entry] if entry is not None and matcher.matches(entry) else []
            return Page(cut.revision, found)
    span = parts.cache.span(prefix, cut.start)
    if not cut.limit:
        entries = list(span) if matcher.everything else [e for e in span if matcher.matches(e)]
        return Page(cut.revision, entries)
    return _cut_page(list(span), prefix, matcher, cut)


def _cut_page(span: Sequence[Entry], prefix: str, matcher: Matcher, cut: _Cut) -> Page:
    taken: list[Entry] = []
    for at, entry in enumerate(span):
        if not matcher.everything and not matcher.matches(entry):
            continue
        if len(taken) == cut.limit:
            token = _token(cut.revision, entry.key[len(prefix) :], cut.now)
            remaining = len(span) - at if matcher.everything else None
            return Page(cut.revision, taken, token, remaining)
        taken.append(entry)
    return Page(cut.revision, taken)


async def _past_page(parts: Parts, prefix: str, matcher: Matcher, cut: _Cut) -> Page:
    """As of a revision that the cache no longer shows: the store remembers."""
    limit = cut.limit + 1 if cut.limit and matcher.everything else 0
    try:
        found = await parts.store.range(prefix, start=cut.start, limit=limit, revision=cut.revision)
    except Compacted:
        if not cut.start:
            raise StatusError(
                410,
                "Expired",
                f"The provided resource version {cut.revision} is too old: the list is no "
                "longer available",
            ) from None
        raise ContinueExpired(_token(-1, cut.start[len(prefix) :], cut.now)) from None
    except FutureRevision as future:
        raise too_large(cut.revision, future.current) from None
    entries = [
        Entry(i.key, splice(i.value, i.revision), revision=i.revision, created=i.created)
        for i in found.items
    ]
    if not cut.limit:
        return Page(cut.revision, [e for e in entries if matcher.matches(e)])
    page = _cut_page(entries, prefix, matcher, cut)
    if page.remaining is not None:
        return Page(cut.revision, page.entries, page.continue_, page.remaining + found.remaining)
    return page


def _now(parts: Parts) -> int:
    return int(parts.clock().timestamp())


def _token(revision: int, start: str, now: int) -> str:
    """``start``: the key of the first object not yet given, behind the prefix."""
    token = orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start, "at": now})
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def _read_token(text: str, prefix: str, now: int) -> tuple[int, str]:
    """The revision, below zero for an inconsistent list, and the key to begin with."""
    try:
        token = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        version, revision, start = token["v"], int(token["rv"]), str(token["start"])
        age = now - int(token.get("at", now))
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise bad_request("continue key is not valid: illegal base64 data") from None
    if version != "meta.k8s.io/v1":
        raise bad_request(f'continue key is not valid: server does not recognize "{version}"')
    if not start or start.startswith("/") or "/../" in f"/{start}/":
        raise bad_request(f"continue key is not valid: {start}")
    if revision > 0 and age > _TOKEN_SECONDS:
        raise ContinueExpired(_token(-1, start, now))
    return revision, prefix + start
