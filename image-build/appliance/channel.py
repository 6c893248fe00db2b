"""
Makes a channel of a folder of bundles: what is the latest version, signed, for plans to follow.

A channel is a folder that any web server can serve, or that lies on a stick: the bundles,
``pinnace-<version>-<board>.raucb``, beside ``channel.json`` and its signature. What it says is
described in ``operators/upgrade/channels/listing.py``. Its key is one of its own (Ed25519): whoever
offers versions cannot make any, since a node looks at the signature of the bundle as well.

``python -m appliance.channel FOLDER [BUNDLE...] --keys=build/keys --latest=v1.36.4+pinnace1``
"""

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from node.host.files import write_atomic
from node.update import bundle
from node.update.base import InstallError, RefusedError
from node.update.version import parse

SCHEMA = 1
CHANNEL, SIGNATURE = "channel.json", "channel.json.sig"
KEY, PUBLIC = "channel.key", "channel.pem"
_FILE = re.compile(
    r"pinnace-(?P<version>v.+?)-(?P<board>(?:x86-64|rpi-arm64|package-[a-z0-9]+))\.raucb"
)


class ChannelError(Exception):
    """Something that the user can mend; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """``""`` and None: as before, or by default."""

    name: str = ""  # stable
    latest: str = ""  # the newest of those that are there
    notes: str = ""  # of the latest
    expires: datetime | None = None
    keyring: Path | None = None  # bundles are verified with it


def key_of(folder: Path) -> Ed25519PrivateKey:
    """
    The key of a folder of keys, made if there is none.

    ``channel.pem`` beside it is what nodes and plans trust. Raises :class:`ChannelError`.
    """
    path = folder / KEY
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = Ed25519PrivateKey.generate()
        private = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_atomic(folder / PUBLIC, made.public_key().public_bytes(*public))
        write_atomic(path, made.private_bytes(*private), mode=0o600)
    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as err:
        raise ChannelError(f"{path}: {err}") from err
    if not isinstance(found, Ed25519PrivateKey):
        raise ChannelError(f"{path} must be a key of Ed25519 (openssl genpkey -algorithm ed25519)")
    return found


def add(folder: Path, bundles: Sequence[Path]) -> None:
    """Put bundles into the folder, as links where that is possible. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in bundles:
        target = folder / path.name
        if target.exists() and target.samefile(path):
            continue
        staged = folder / f".{path.name}.new"
        staged.unlink(missing_ok=True)
        try:
            os.link(path, staged)
        except OSError:
            shutil.copyfile(path, staged)
        staged.replace(target)


def write(folder: Path, key: Ed25519PrivateKey, wanted: Wanted, now: datetime) -> dict[str, Any]:
    """
    Say and sign what is in the folder; nothing is written where nothing has changed.

    What it says is returned. Raises :class:`ChannelError`.
    """
    before = _before(folder)
    told = _document(folder, before, wanted, now)
    data = _text(told)
    signed = _signature_of(folder) == key.sign(_text(before)) if before else False
    if {**told, "serial": 0} == {**before, "serial": 0} and signed:
        return before
    # Whoever reads the two files in between finds that they do not fit, and reads them again.
    write_atomic(folder / SIGNATURE, base64.b64encode(key.sign(data)) + b"\n")
    write_atomic(folder / CHANNEL, data)
    return told


def _before(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / CHANNEL).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as err:
        # Its serial must not begin anew: whoever has seen a larger one would refuse it.
        raise ChannelError(f"{folder / CHANNEL} cannot be read: {err}") from err
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ChannelError(f"{folder / CHANNEL} is no channel of schema {SCHEMA}")
    return found


def _signature_of(folder: Path) -> bytes:
    try:
        return base64.b64decode((folder / SIGNATURE).read_bytes())
    except (OSError, ValueError):
        return b""


def _text(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _document(
    folder: Path, before: Mapping[str, Any], wanted: Wanted, now: datetime
) -> dict[str, Any]:
    known = {release["version"]: release for release in before.get("releases") or ()}
    releases = []
    for version, bundles in _bundles(folder, wanted.keyring).items():
        old = known.get(version, {})
        date = old.get("date") or now.strftime("%Y-%m-%d")
        notes = old.get("notes") or ""
        releases.append({"version": version, "date": date, "notes": notes, "bundles": bundles})
    if not releases:
        raise ChannelError(f"{folder} has no pinnace-<version>-<board>.raucb")
    latest = wanted.latest or releases[0]["version"]
    chosen = next((release for release in releases if release["version"] == latest), None)
    if chosen is None:
        raise ChannelError(f"{folder} has no bundle of {latest}")
    chosen["notes"] = wanted.notes or chosen["notes"]
    found = {
        "schema": SCHEMA,
        "name": wanted.name or before.get("name") or "stable",
        "serial": int(before.get("serial") or 0) + 1,
        "latest": latest,
    }
    if wanted.expires is not None:
        found["expires"] = wanted.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**found, "releases": releases}


def _bundles(folder: Path, keyring: Path | None) -> dict[str, dict[str, Any]]:
    """By version, the newest first, and by board."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("pinnace-*.raucb")):
        matched = _FILE.fullmatch(path.name)
        if matched is None:
            raise ChannelError(
                f"{path.name} is no name such as pinnace-v1.36.4+pinnace1-x86-64.raucb"
            )
        version, board = matched["version"], matched["board"]
        if keyring is not None:
            _verify(path, keyring, version, board)
        entry = {"url": path.name, "sha256": _digest(path), "size": path.stat().st_size}
        found.setdefault(version, {})[board] = entry
    try:
        order = sorted(found, key=parse, reverse=True)
    except ValueError as err:
        raise ChannelError(str(err)) from err
    return {version: found[version] for version in order}


def _verify(path: Path, keyring: Path, version: str, board: str) -> None:
    try:
        said = bundle.check(path, keyring, board)
    except (RefusedError, InstallError) as err:
        raise ChannelError(f"{path.name}: {err}") from err
    if str(said.version) != str(parse(version)):
        raise ChannelError(f"{path.name} says of itself that it is {said.version}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str], now: datetime) -> int:
    about = __doc__.partition("\n\n")[0]
    parser = argparse.ArgumentParser(prog="appliance.channel", description=about)
    parser.add_argument("folder", type=Path, help="the channel")
    parser.add_argument("bundles", type=Path, nargs="*", help="what to put into it first")
    parser.add_argument("--keys", type=Path, default=Path("build/keys"), help="made on first use")
    parser.add_argument("--name", default="", help="of the channel (stable)")
    parser.add_argument("--latest", default="", help="what plans shall go to (the newest)")
    parser.add_argument("--notes", default="", help="one line about the latest")
    parser.add_argument("--days", type=int, help="how long plans may believe this (no end)")
    parser.add_argument("--keyring", type=Path, help="verify the bundles with these certificates")
    told = parser.parse_intermixed_args(arguments)
    try:
        key = key_of(told.keys)
        add(told.folder, told.bundles)
        wanted = Wanted(
            name=told.name,
            latest=told.latest,
            notes=told.notes,
            expires=now + timedelta(days=told.days) if told.days else None,
            keyring=told.keyring,
        )
        said = write(told.folder, key, wanted, now)
    except (ChannelError, OSError) as err:
        sys.stderr.write(f"{err}\n")
        return 1
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    sys.stdout.write(
        f"{told.folder}: channel {said['name']}, serial {said['serial']}, latest {said['latest']}\n"
        f"channelKey: {public}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], datetime.fromtimestamp(time.time(), UTC)))
