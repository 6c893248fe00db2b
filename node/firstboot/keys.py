"""
Public keys of SSH: which lines let somebody in, and what a host's own key is recognised by.

Source: RFC 4253 section 6.6, sshd(8) "AUTHORIZED_KEYS FILE FORMAT".
"""

import base64
import binascii
import hashlib
import re
import struct

_KINDS = frozenset(
    """
    ssh-ed25519 ssh-rsa ecdsa-sha2-nistp256 ecdsa-sha2-nistp384 ecdsa-sha2-nistp521
    sk-ssh-ed25519@openssh.com sk-ecdsa-sha2-nistp256@openssh.com
    """.split()
)
_KEY = re.compile(r"(?:^|\s)((?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9@.\-]+)\s+([A-Za-z0-9+/=]+)(?=\s|$)")
_SMALLEST_RSA = 2048  # bits; sshd refuses smaller ones


def wrong_with(line: str) -> str:
    """Why a line is not taken into authorized_keys, for its writer; "" where it is right."""
    if "PRIVATE KEY" in line:
        return "is a private key, which nobody else may have: give the file that ends in .pub"
    if "\n" in line.strip():
        return "must be one line: one key an item"
    found = _KEY.search(line)
    if not found:
        return "is no public key such as 'ssh-ed25519 AAAAC3… me@laptop': copy the .pub file whole"
    kind, text = found.groups()
    if kind not in _KINDS:
        return f"is of a kind that sshd does not take any more ({kind}): make an ssh-ed25519 key"
    try:
        blob = base64.b64decode(text, validate=True)
        fields = _fields(blob)
    except (binascii.Error, ValueError):
        return "is cut off or damaged: copy the .pub file whole"
    if len(fields) < 2 or fields[0] != kind.encode():
        return "is damaged: it says another kind within than in front"
    if kind == "ssh-rsa" and len(fields) > 2 and len(fields[2].lstrip(b"\0")) * 8 < _SMALLEST_RSA:
        return f"is an RSA key of less than {_SMALLEST_RSA} bits, which sshd refuses"
    return ""


def _fields(blob: bytes) -> list[bytes]:
    found = []
    at = 0
    while at < len(blob):
        if at + 4 > len(blob):
            raise ValueError("cut off")
        (length,) = struct.unpack_from(">I", blob, at)
        if at + 4 + length > len(blob):
            raise ValueError("cut off")
        found.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def fingerprint(public: str) -> str:
    """Of a .pub file, as ``ssh`` shows it at the first connection: SHA256:…; "" if it is none."""
    found = _KEY.search(public)
    if not found:
        return ""
    try:
        blob = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        return ""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"{found[1].removeprefix('ssh-').upper()} SHA256:{digest}"
