"""
Certificates and keys: what is broken, what is made again by itself, and what only if asked for.
"""

import importlib
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from node.repair.base import Finding, Options, Place, fine, wrong

AREA = "certificates"
_AUTHORITIES = ("server-ca", "client-ca", "request-header-ca")
_PRIVATE = ("server/token", "server/tls/*.key", "agent/*.key", "agent/*.kubeconfig")


def look(place: Place, options: Options, now: float) -> Iterator[Finding]:
    tls = place.data / "server" / "tls"
    if not tls.is_dir():
        yield fine(AREA, "none yet")
        return
    if options.new_certificates:
        yield wrong(
            AREA,
            "to be made anew, authorities and keys too",
            would="every kubeconfig, token and joined machine needs the new ones",
            mend=lambda: _anew(place),
        )
        return
    broken = list(_broken(tls))
    if broken:
        yield wrong(
            AREA,
            "; ".join(broken),
            would="put the files back from a backup, or say --new-certificates to have all "
            "made anew",
        )
    else:
        yield fine(AREA, _until(tls, now))
    yield from _modes(place)


def _broken(tls: Path) -> Iterator[str]:
    module = importlib.import_module("controlplane.pki.ensure")
    pem = importlib.import_module("controlplane.pki.pem")
    for name in _AUTHORITIES:
        if not (tls / f"{name}.crt").exists():
            if (tls / f"{name}.key").exists():
                continue  # made again of its key
            yield f"{tls / name}.crt is missing"
            continue
        try:
            found = module.load_authority(tls, name)
            if found.certificate.public_key() != found.key.public_key():
                yield f"{tls / name}.key does not belong to its certificate"
        except Exception as err:  # PkiError of a module that is not imported here, or OSError
            yield str(err)
    try:
        if (tls / "service.key").exists():
            pem.load_keys(tls / "service.key")
    except Exception as err:
        yield str(err)


def _until(tls: Path, now: float) -> str:
    pem = importlib.import_module("controlplane.pki.pem")
    try:
        ends = min(
            pem.load_certificates(tls / f"{name}.crt")[0].not_valid_after_utc
            for name in _AUTHORITIES
        )
    except Exception:
        return "made again at the next start"
    left = (ends - datetime.fromtimestamp(now, UTC)).days
    return f"the authorities are good for {left} days; all others are renewed at each start"


def _modes(place: Place) -> Iterator[Finding]:
    open_ = [
        path
        for pattern in _PRIVATE
        for path in place.data.glob(pattern)
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if open_:
        yield wrong(
            "permissions",
            f"others may read {', '.join(map(str, open_))}",
            would="take that right away",
            mend=lambda: _close(open_),
        )


def _close(paths: list[Path]) -> str:
    for path in paths:
        path.chmod(0o600)
    return "done; who has read them still knows them"


def _anew(place: Place) -> str:
    tls = place.data / "server" / "tls"
    place.set_aside(tls)
    token = place.data / "server" / "token"
    for path in (
        token,
        *(place.data / "agent").glob("*.crt"),
        *(place.data / "agent").glob("*.key"),
    ):
        if path.exists():
            place.set_aside(path)
    return f"they are made at the next start; the old ones are in {place.aside}"
