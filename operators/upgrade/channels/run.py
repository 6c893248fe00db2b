"""
Answers what a plan may upgrade to, from where its spec says.

``channel`` alone: what that channel calls its latest. ``version`` with ``source``: that version,
from a folder or a server that holds ``pinnace-<version>-<board>.raucb``, or from a signed channel
where there is a ``channelKey`` or the source is named as far as ``…/channel.json``. For nodes that
a Job upgrades a version is enough, from a channel server as K3s has them.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from operators.upgrade.base import Offer, OfferError
from operators.upgrade.channels import fetch, listing
from operators.upgrade.channels.fetch import Missing, Web
from operators.upgrade.channels.listing import Listing

# Keys that a machine trusts whatever a plan says, as listed in channels/signed.py.
KEYRINGS = (Path("/usr/share/pinnace/channel.pem"), Path("/etc/pinnace/channel.pem"))
CHANNEL, SIGNATURE = "channel.json", "channel.json.sig"
_LARGEST, _SUM = 1 << 20, 4096  # bytes
Spec = Mapping[str, Any]


class SignedChannels:
    """
    A :class:`~operators.upgrade.base.Channels`.

    ``proxy``: HTTP_PROXY and its like. ``keyrings``: files of keys for plans that name none. Its
    state is what the servers said last, so that an unchanged channel costs one small request.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        proxy: Mapping[str, str] | None = None,
        keyrings: Sequence[Path] = KEYRINGS,
    ) -> None:
        self._now = now
        self._keyrings = keyrings
        self._web = Web(proxy or {})

    async def offers(
        self, spec: Spec, boards: Sequence[str], *, serial: int = 0
    ) -> Mapping[str, Offer]:
        version, channel = str(spec.get("version") or ""), str(spec.get("channel") or "")
        source, ours = str(spec.get("source") or ""), [board for board in boards if board]
        if not ours:
            return {board: await self._for_jobs(spec, serial) for board in boards}
        if channel or spec.get("channelKey") or source.endswith(f"/{CHANNEL}"):
            found = await self._of_channel(channel or source, spec, ours, serial)
        elif version and source:
            found = await self._of_source(source, version, ours)
        else:
            raise OfferError("NoSuchVersion", "a version needs a source to get it from")
        if "" in boards:
            first = next(iter(found.values()))
            found[""] = Offer(version=first.version, url="", sha256="", size=0, serial=first.serial)
        return found

    async def _for_jobs(self, spec: Spec, serial: int) -> Offer:
        """Nothing but a version."""
        version, channel = str(spec.get("version") or ""), str(spec.get("channel") or "")
        number = 0
        if not version and (spec.get("channelKey") or not fetch.is_web(channel)):
            found = await self._listing(channel, spec, serial)
            version, number = found.latest, found.serial
        elif not version:
            version = await self._web.last_of(channel)
            # A page that is simply there would make a version of its own address.
            if not re.search(r"\d", version):
                raise OfferError("NoSuchVersion", f"{fetch.shown(channel)} names no version")
        return Offer(version=version, url="", sha256="", size=0, serial=number)

    async def _of_channel(
        self, place: str, spec: Spec, boards: Sequence[str], serial: int
    ) -> dict[str, Offer]:
        found, version = await self._listing(place, spec, serial), str(spec.get("version") or "")
        chosen = version or found.latest
        return {
            board: Offer(
                version=chosen,
                url=_resolved(place, bundle.url),
                sha256=bundle.sha256,
                size=bundle.size,
                serial=found.serial,
            )
            for board, bundle in listing.bundles(found, chosen, boards).items()
        }

    async def _listing(self, place: str, spec: Spec, serial: int) -> Listing:
        data, signature = await self._pair(place, afresh=False)
        trusted = await self._keys(spec)
        try:
            _verify(data, signature, trusted)
        except OfferError:
            if not fetch.is_web(place):
                raise
            # A channel is two files, of which a cache or a moment may have mixed old and new.
            data, signature = await self._pair(place, afresh=True)
            _verify(data, signature, trusted)
        found = listing.parse(data)
        listing.admit(found, serial=serial, now=self._now())
        return found

    async def _pair(self, place: str, *, afresh: bool) -> tuple[bytes, bytes]:
        try:
            if fetch.is_web(place):
                base = _as_folder(place)
                urls = (urljoin(base, CHANNEL), urljoin(base, SIGNATURE))
                return await self._web.pair(*urls, _LARGEST, afresh=afresh)
            folder = _folder(place)
            data = await fetch.read(folder / CHANNEL, _LARGEST)
            return data, await fetch.read(folder / SIGNATURE, _SUM)
        except Missing as err:
            if str(err).endswith(SIGNATURE):
                raise OfferError("BadSignature", f"{err} is not there: not signed") from err
            raise fetch.unreachable(place, f"there is no {CHANNEL}") from err

    async def _keys(self, spec: Spec) -> list[Any]:
        # Here, since it loads a library that nobody without a channel needs, and that the image of
        # the operators for another Kubernetes, where versions are names alone, does not have.
        try:
            from operators.upgrade.channels import signed
        except ImportError as err:
            raise OfferError("BadSignature", f"signatures cannot be checked here: {err}") from err
        texts = {"channelKey": str(spec.get("channelKey") or "")}
        if not texts["channelKey"]:
            texts = {str(path): await _keyring(path) for path in self._keyrings}
        found: list[Any] = []
        for origin, text in texts.items():
            if text:
                try:
                    found += signed.keys(text)
                except ValueError as err:
                    raise OfferError("BadSignature", f"{origin}: {err}") from err
        if not found:
            why = "no channelKey is given, and this machine has no key of its own for channels"
            raise OfferError("BadSignature", why)
        return found

    async def _of_source(
        self, source: str, version: str, boards: Sequence[str]
    ) -> dict[str, Offer]:
        if not listing.VERSION.fullmatch(version):
            raise OfferError("NoSuchVersion", f"{version!r} is no version such as v1.36.4+pinnace1")
        found, missing = {}, []
        for board in boards:
            try:
                if fetch.is_web(source):
                    found[board] = await self._on_server(_as_folder(source), version, board)
                else:
                    found[board] = await _in_folder(_folder(source), version, board)
            except Missing:
                missing.append(board)
        if not found:
            names = ", ".join(_file(version, board) for board in missing)
            raise OfferError("NoSuchVersion", f"{fetch.shown(source)} has no {names}")
        return found

    async def _on_server(self, base: str, version: str, board: str) -> Offer:
        # A plus in a path is a plus, but not to every server.
        url = urljoin(base, quote(_file(version, board)))
        size = await self._web.size(url)
        try:
            sha256 = _sum(await self._web.text(f"{url}.sha256", _SUM))
        except Missing:
            sha256 = ""
        return Offer(version=version, url=url, sha256=sha256, size=size)


async def _in_folder(folder: Path, version: str, board: str) -> Offer:
    path = folder / _file(version, board)
    try:
        size = (await asyncio.to_thread(path.stat)).st_size
    except FileNotFoundError as err:
        raise Missing(str(path)) from err
    except OSError as err:
        raise fetch.unreachable(str(path), err.strerror) from err
    try:
        sha256 = _sum((await fetch.read(path.with_name(f"{path.name}.sha256"), _SUM)).decode())
    except Missing:
        sha256 = ""
    return Offer(version=version, url=str(path), sha256=sha256, size=size)


async def _keyring(path: Path) -> str:
    try:
        return (await fetch.read(path, _LARGEST)).decode(errors="replace")
    except Missing:
        return ""


def _verify(data: bytes, signature: bytes, trusted: Sequence[Any]) -> None:
    from operators.upgrade.channels import signed

    try:
        signed.verify(data, signature, trusted)
    except ValueError as err:
        raise OfferError("BadSignature", f"{CHANNEL}: {err}") from err


def _file(version: str, board: str) -> str:
    return f"pinnace-{version}-{board}.raucb"


def _sum(text: str) -> str:
    """As sha256sum writes it; "" where it is none."""
    found = re.match(r"[0-9a-fA-F]{64}(?![0-9a-zA-Z])", text.strip())
    return found[0].lower() if found else ""


def _as_folder(url: str) -> str:
    """An address that names the file itself is one of the folder, too."""
    url = url.removesuffix(CHANNEL)
    return url if url.endswith("/") else f"{url}/"


def _folder(place: str) -> Path:
    found = fetch.folder_of(place.removesuffix(CHANNEL))
    if found is None:
        raise fetch.unreachable(place, "neither http://, https://, file:/// nor an absolute path")
    return found


def _resolved(place: str, url: str) -> str:
    """Where a bundle is; a channel on a server cannot name files of a node."""
    if fetch.is_web(url):
        return url
    if fetch.is_web(place):
        found = urljoin(_as_folder(place), url)
        if not fetch.is_web(found):
            raise OfferError("BadChannel", f"{url!r} is no address for a channel on a server")
        return found
    path = fetch.folder_of(url)
    return str(path or _folder(place) / url)
