"""
Certificates and keys out of PEM files, with an error that names the file and the way out.
"""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from controlplane.pki.certificates import PrivateKey
from controlplane.pki.files import PkiError, read


def load_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    content = read(path) or b""
    try:
        return tuple(x509.load_pem_x509_certificates(content))
    except ValueError as err:
        raise PkiError(
            f"{path} holds no certificate in PEM (damaged or half written): put it back from a "
            "backup, or remove it to have it made again"
        ) from err


def load_keys(path: Path) -> list[PrivateKey]:
    return parse_keys(path, read(path) or b"")


def parse_keys(path: Path, content: bytes) -> list[PrivateKey]:
    """``path`` is for the error only."""
    try:
        return parse_private_keys(content)
    except (ValueError, TypeError) as err:
        raise PkiError(
            f"{path} holds no private key in PEM (damaged, half written or encrypted): put it back "
            "from a backup; removing it makes what it signed worthless"
        ) from err


def parse_private_keys(content: bytes) -> list[PrivateKey]:
    """All EC and RSA keys in a PEM file; ``ValueError`` for none or another kind."""
    keys: list[PrivateKey] = []
    for block in content.split(b"-----BEGIN ")[1:]:
        # OpenSSL writes the curve in a block of its own before the key.
        if block.startswith(b"EC PARAMETERS"):
            continue
        key = serialization.load_pem_private_key(b"-----BEGIN " + block, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError(f"unsupported kind of key: {type(key).__name__}")
        keys.append(key)
    if not keys:
        raise ValueError("no private key")
    return keys
