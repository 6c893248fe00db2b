"""
Who signed a channel: detached Ed25519 signatures (RFC 8032) over the bytes of ``channel.json``.

``openssl pkeyutl -sign -rawin`` makes the same. The signature is 64 bytes, as they are or in
base64. Several keys may be trusted at a time, so that one can follow another.
"""

import base64
import binascii
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", re.DOTALL)
_KEY, _SIGNATURE = 32, 64  # bytes


def keys(text: str) -> list[Ed25519PublicKey]:
    """
    From PEM, or from one base64 a line: of the 32 bytes of a key, or of what PEM has in it.

    Raises ValueError, which says what is wrong.
    """
    encoded = _PEM.findall(text)
    if not encoded:
        encoded = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    if not encoded:
        raise ValueError("there is no key")
    return [_key(part) for part in encoded]


def _key(encoded: str) -> Ed25519PublicKey:
    try:
        raw = base64.b64decode("".join(encoded.split()), validate=True)
        found = Ed25519PublicKey.from_public_bytes(raw) if len(raw) == _KEY else None
        found = found or load_der_public_key(raw)  # type: ignore[assignment]
    except (binascii.Error, ValueError, UnsupportedAlgorithm) as err:
        raise ValueError("this is no public key of Ed25519 (PEM or base64)") from err
    if not isinstance(found, Ed25519PublicKey):
        raise ValueError("this is a public key, but none of Ed25519")
    return found


def verify(data: bytes, signature: bytes, trusted: Sequence[Ed25519PublicKey]) -> None:
    """Raises ValueError, which says what is wrong."""
    raw = _signature(signature)
    for key in trusted:
        try:
            key.verify(raw, data)
        except InvalidSignature:
            continue
        return
    raise ValueError("the signature is of another key, or of another text")


def _signature(given: bytes) -> bytes:
    if len(given) == _SIGNATURE:
        return given
    try:
        raw = base64.b64decode(b"".join(given.split()), validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != _SIGNATURE:
        raise ValueError("this is no signature of Ed25519: 64 bytes, or those in base64")
    return raw
