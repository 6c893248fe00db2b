"""
The join token: what proves to an agent that this is its server, and to the server its agent.

``K10<sha256 of the server CA>::server:<password>``; the short form is the
password alone and checks no CA. The hash is over the PEM file where it holds
one self-made certificate and over the root's DER otherwise, as K3s counts it.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from controlplane.pki.files import PkiError

USER = "server"
_FULL = re.compile(r"K10([0-9a-f]{64})::(?:([^:]+):)?(.+)")
_BOOTSTRAP = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    ca_hash: str  # "": the short form
    password: str

    def __str__(self) -> str:
        if not self.ca_hash:
            return self.password
        return f"K10{self.ca_hash}::{USER}:{self.password}"


def new_password() -> str:
    return secrets.token_hex(16)


def parse(text: str) -> Token:
    """Raises :class:`PkiError` for what cannot be a server's token."""
    text = text.strip()
    if text.startswith("K10"):
        match = _FULL.fullmatch(text)
        if match is None:
            raise PkiError("the token begins with K10 but is not K10<64 hex digits>::server:<…>")
        ca_hash, user, password = match.groups()
        if user not in {None, USER} or (user is None and _BOOTSTRAP.fullmatch(password)):
            raise PkiError(f"the token is not a server's: its user must be {USER!r}")
        return Token(ca_hash=ca_hash, password=password)
    if _BOOTSTRAP.fullmatch(text):
        raise PkiError("a bootstrap token (id.secret) joins agents; a server needs a password")
    return Token(ca_hash="", password=text)


def hash_of(bundle: bytes) -> str:
    """Of a CA file in PEM."""
    certificates = x509.load_pem_x509_certificates(bundle)
    if len(certificates) == 1:
        return hashlib.sha256(bundle).hexdigest()
    root = certificates[-1].public_bytes(serialization.Encoding.DER)
    return hashlib.sha256(root).hexdigest()
