"""
The keys that bundles are signed with: a CA of yours, a key below it, and the keyring for images.

They are made on first use in a folder of yours (``build/keys``; ``PINNACE_KEYS=`` of ``make`` names
another). Keep it: whoever loses ``ca.key`` can update machines in the field only with a stick and a
new image. The CA signs nothing but keys, so ``ca.key`` may lie elsewhere; ``bundle.key`` signs.

Rotation: ``python -m appliance.keys FOLDER --rotate`` makes a new CA and key and puts both CAs into
``keyring.pem``. Ship one release that is still signed with the old key (it is kept as
``bundle.key.old``) and brings the new keyring, then sign with the new one. ``--forget`` leaves only
the new CA in the keyring, for the release after that.

Certificates have no end: a machine without a battery for its clock cannot judge one, and RAUC and
``node.update.signature`` look at the time of signing. What makes a stolen key worthless is a
keyring without its CA.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node.host.files import write_atomic

BITS = 3072
# Before any release; and what RFC 5280, 4.1.2.5 gives to certificates that do not end.
_FROM = datetime(2020, 1, 1, tzinfo=UTC)
_UNTIL = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_USAGE = """
    digital_signature content_commitment key_encipherment data_encipherment key_agreement
    key_cert_sign crl_sign encipher_only decipher_only
    """.split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What signs, and what machines will trust."""

    key: rsa.RSAPrivateKey
    certificates: Sequence[x509.Certificate]  # the signer's first, then those below the CA
    keyring: Path


class KeysError(Exception):
    """The folder of keys cannot be used; the text says why and what to do."""


def ensure(folder: Path) -> Keys:
    """The keys of a folder, made if there are none. Raises :class:`KeysError`."""
    if not (folder / "bundle.key").exists():
        if (folder / "keyring.pem").exists():
            raise KeysError(f"{folder} has a keyring and no bundle.key: where did it go?")
        _make(folder)
    return load(folder)


def load(folder: Path) -> Keys:
    """Keys of an own PKI are as welcome: bundle.key, bundle.crt (with its chain), keyring.pem."""
    try:
        key = load_key(folder / "bundle.key")
        chain = x509.load_pem_x509_certificates((folder / "bundle.crt").read_bytes())
        x509.load_pem_x509_certificates((folder / "keyring.pem").read_bytes())
    except (OSError, ValueError, TypeError) as err:
        raise KeysError(f"keys of {folder}: {err}") from err
    if chain[0].public_key() != key.public_key():
        raise KeysError(f"{folder}/bundle.crt is not the certificate of bundle.key")
    return Keys(key=key, certificates=chain, keyring=folder / "keyring.pem")


def load_key(path: Path) -> rsa.RSAPrivateKey:
    """Raises OSError, and ValueError or TypeError where it is no RSA key that is open."""
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        # A signature on an elliptic curve has a random part: no build could be repeated.
        raise ValueError(f"{path.name} must be an RSA key")
    return key


def rotate(folder: Path) -> Keys:
    """A new CA and key beside the old; machines with the keyring trust both."""
    old = load(folder)
    trusted = old.keyring.read_bytes()
    for name in ("ca.key", "ca.crt", "bundle.key", "bundle.crt"):
        if (folder / name).exists():
            kept = folder / f"{name}.old"
            write_atomic(kept, (folder / name).read_bytes(), mode=_mode(name))
    _make(folder, trusted)
    return load(folder)


def forget(folder: Path) -> None:
    """The keyring trusts the present CA alone."""
    write_atomic(folder / "keyring.pem", (folder / "ca.crt").read_bytes())


def _make(folder: Path, trusted: bytes = b"") -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_key, leaf_key = (rsa.generate_private_key(65537, BITS) for _ in range(2))
    serial = x509.random_serial_number()
    # The number in the name keeps two CAs of one keyring apart.
    name = _name(f"Pinnace bundles CA {serial % 0xFFFFFFFF:08x}")
    builder = x509.CertificateBuilder().issuer_name(name).not_valid_before(_FROM)
    builder = builder.not_valid_after(_UNTIL)
    ca = _certificate(builder.subject_name(name).serial_number(serial), ca_key, ca_key)
    builder = builder.subject_name(_name("Pinnace bundles"))
    leaf = _certificate(builder.serial_number(x509.random_serial_number()), leaf_key, ca_key)
    files = {
        "ca.key": _pem(ca_key),
        "ca.crt": _shown(ca),
        "keyring.pem": _shown(ca) + trusted,
        "bundle.crt": _shown(leaf),
        "bundle.key": _pem(leaf_key),  # the last: its presence says that all are there
    }
    for file, content in files.items():
        write_atomic(folder / file, content, mode=_mode(file))


def _mode(name: str) -> int:
    return 0o600 if ".key" in name else 0o644


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    builder: x509.CertificateBuilder, key: rsa.RSAPrivateKey, signer: rsa.RSAPrivateKey
) -> x509.Certificate:
    """Of an authority where the key signs itself."""
    authority = key is signer
    allowed = {"key_cert_sign", "crl_sign"} if authority else {"digital_signature"}
    usage = x509.KeyUsage(**{name: name in allowed for name in _USAGE})
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        builder.public_key(key.public_key())
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(above, critical=False)
    )
    if not authority:
        # RAUC's purposes: "smimesign" (its default) wants the first, "codesign" the second.
        purposes = [ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.CODE_SIGNING]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _shown(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="appliance.keys", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rotate", action="store_true", help="a new CA and key, both CAs trusted")
    parser.add_argument("--forget", action="store_true", help="trust the present CA alone")
    told = parser.parse_args(arguments)
    try:
        if told.rotate:
            rotate(told.folder)
        elif told.forget:
            forget(told.folder)
        else:
            ensure(told.folder)
    except (KeysError, OSError) as err:
        sys.stderr.write(f"{err}\n")
        return 1
    sys.stdout.write(f"keys in {told.folder}, what machines trust in {told.folder}/keyring.pem\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
