"""
What a channel says, ``channel.json``::

    {"schema": 1, "name": "stable", "serial": 12, "latest": "v1.36.4+pinnace1",
     "expires": "2027-01-01T00:00:00Z",              # may be missing
     "releases": [{"version": "v1.36.4+pinnace1", "date": "2026-11-24", "notes": "…",
                   "bundles": {"x86-64": {"url": "x.raucb", "sha256": "<hex>", "size": 1}}}]}

``serial`` grows with every change, so that an old channel, which is signed as well, is noticed when
somebody shows it again. A ``url`` is relative to the channel, or whole. What is not named here is
ignored. Pure.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from operators.upgrade.base import OfferError

SCHEMA = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    url: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    name: str
    serial: int
    latest: str
    expires: datetime | None
    releases: Mapping[str, Mapping[str, Bundle]]  # version → board → bundle


def parse(data: bytes) -> Listing:
    """Of a text whose signature was checked. Raises :class:`OfferError`."""
    try:
        found = json.loads(data)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']!r} is not understood here")
        listing = Listing(
            name=_word(found, "name"),
            serial=_number(found, "serial"),
            latest=_word(found, "latest"),
            expires=_moment(found.get("expires")),
            releases={_version(entry): _bundles(entry) for entry in found["releases"]},
        )
        if listing.latest not in listing.releases:
            raise ValueError(f"latest is {listing.latest}, which is not among the releases")
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        why = f"{err} is missing" if isinstance(err, KeyError) else str(err)
        raise OfferError("BadChannel", f"the channel is signed but makes no sense: {why}") from err
    return listing


def _word(found: Mapping[str, Any], name: str) -> str:
    if not isinstance(found[name], str) or not found[name]:
        raise ValueError(f"{name} must be a text")
    return str(found[name])


def _number(found: Mapping[str, Any], name: str) -> int:
    value = found[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a number from 1 on")
    return value


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _version(entry: Mapping[str, Any]) -> str:
    version = _word(entry, "version")
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is no version such as v1.36.4+pinnace1")
    return version


def _bundles(entry: Mapping[str, Any]) -> dict[str, Bundle]:
    return {board: _bundle(given) for board, given in entry["bundles"].items()}


def _bundle(given: Mapping[str, Any]) -> Bundle:
    sha256 = _word(given, "sha256").lower()
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is no sha256")
    return Bundle(url=_word(given, "url"), sha256=sha256, size=_number(given, "size"))


def admit(listing: Listing, *, serial: int, now: datetime) -> None:
    """Raises :class:`OfferError` for a channel that was true once."""
    if listing.serial < serial:
        raise OfferError(
            "OldChannel",
            f"channel {listing.name} has serial {listing.serial}, and had {serial} before: "
            "it is an old one",
        )
    if listing.expires is not None and now > listing.expires:
        raise OfferError(
            "ChannelExpired", f"channel {listing.name} was to be believed until {listing.expires}"
        )


def bundles(listing: Listing, version: str, boards: Sequence[str]) -> dict[str, Bundle]:
    """Those that there are. Raises :class:`OfferError` where there is none."""
    if version not in listing.releases:
        raise OfferError("NoSuchVersion", f"channel {listing.name} has no {version}")
    there = listing.releases[version]
    found = {board: there[board] for board in boards if board in there}
    if not found:
        raise OfferError(
            "NoBundleForBoard",
            f"channel {listing.name} has {version} for {', '.join(sorted(there)) or 'no board'}, "
            f"not for {', '.join(sorted(boards))}",
        )
    return found
