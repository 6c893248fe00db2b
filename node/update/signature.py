"""
Who signed a bundle, and what: the CMS signature is verified as RAUC does, with exact reasons.

RAUC verifies again when it installs an image and its verdict counts; this one tells a stranger's
key from a damaged file, works where there is no RAUC (a plain Debian), and starts no program.
A certificate is judged at the time of signing, not by the clock of the machine: a board without a
battery may believe that it is 1970. So a key that leaked is not made harmless by the end of its
certificate, but by a keyring without its CA.
Source: RFC 5652 (CMS), RFC 5280 (certificates).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from node.update import der

SIGNED_DATA, DATA = "1.2.840.113549.1.7.2", "1.2.840.113549.1.7.1"
CONTENT_TYPE, DIGEST, SIGNING_TIME = (f"1.2.840.113549.1.9.{number}" for number in (3, 4, 5))
RSA = "1.2.840.113549.1.1.1"
SHA256 = "2.16.840.1.101.3.4.2.1"
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    SHA256: hashes.SHA256,
    "2.16.840.1.101.3.4.2.2": hashes.SHA384,
    "2.16.840.1.101.3.4.2.3": hashes.SHA512,
}
# PKCS #1 v1.5 and ECDSA, each with SHA-256, -384, -512; CMS names the first without its hash, too.
_SCHEMES = frozenset(
    {RSA}
    | {f"1.2.840.113549.1.1.{number}" for number in (11, 12, 13)}
    | {f"1.2.840.10045.4.3.{number}" for number in (2, 3, 4)}
)
_PURPOSES = (ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
_DEPTH = 8  # certificates between the signer's and an anchor


class DamagedError(Exception):
    """This is no signature, or not one of the content that it stands beside."""


class StrangerError(Exception):
    """Signed as it should be, but by nobody whom the keyring trusts with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    content: bytes
    signer: str  # the subject of the certificate
    when: datetime  # as the signer claims


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """A signature that was read, and not believed yet."""

    content: bytes
    certificates: Sequence[x509.Certificate]
    signer: bytes  # issuer and serial number, DER
    hash: hashes.HashAlgorithm
    scheme: str
    attributes: bytes  # as they are signed: a SET
    digest: bytes
    when: datetime
    signature: bytes


def keyring(path: Path) -> list[x509.Certificate]:
    """The CAs that are trusted, one or several in one file. Raises OSError or ValueError."""
    return x509.load_pem_x509_certificates(path.read_bytes())


def verify(cms: bytes, anchors: Sequence[x509.Certificate]) -> Signed:
    """``cms`` with its content inside, DER. Raises DamagedError or StrangerError."""
    try:
        claim = _read(cms)
    except der.DerError as err:
        raise DamagedError(f"the signature cannot be read: {err}") from err
    except ValueError as err:  # a part too few or too many
        raise DamagedError("the signature cannot be read") from err
    leaf = next((c for c in claim.certificates if _name(c) == claim.signer), None)
    if leaf is None:
        raise DamagedError("the certificate of the signer is missing")
    who = leaf.subject.rfc4514_string()
    _check_chain(leaf, claim.certificates, anchors, claim.when)
    _check_signature(leaf, claim)
    return Signed(content=claim.content, signer=who, when=claim.when)


def _read(cms: bytes) -> _Claim:
    """Whatever is not as it must be is an error: no bit may be changed and nobody notice."""
    kind, wrapped = der.element(cms).expect(der.SEQUENCE).parts()
    _expect(der.oid_text(kind), SIGNED_DATA)
    data = der.element(wrapped.expect(0xA0).body).expect(der.SEQUENCE)
    version, algorithms, inner, given, signers = data.parts()
    _expect(version.raw, der.integer(1))
    what, content = inner.expect(der.SEQUENCE).parts()
    _expect(der.oid_text(what), DATA)
    [signer] = signers.expect(der.SET).parts()
    version, name, algorithm, attributes, scheme, signature = signer.expect(der.SEQUENCE).parts()
    _expect(version.raw, der.integer(1))  # named by issuer and number
    _expect(algorithms.raw, der.set_of([algorithm.raw]))
    found = _attributes(attributes.expect(0xA0))
    _expect(der.oid_text(found[CONTENT_TYPE]), DATA)
    return _Claim(
        content=der.element(content.expect(0xA0).body).expect(der.OCTETS).body,
        certificates=[_certificate(part.raw) for part in given.expect(0xA0).parts()],
        signer=name.expect(der.SEQUENCE).raw,
        hash=_hash(algorithm),
        scheme=_parameterless(scheme),
        attributes=der.encode(der.SET, attributes.body),
        digest=found[DIGEST].expect(der.OCTETS).body,
        when=der.time_of(found[SIGNING_TIME]),
        signature=signature.expect(der.OCTETS).body,
    )


def _certificate(raw: bytes) -> x509.Certificate:
    """Read to its end at once: the library would complain of some parts only when asked."""
    try:
        found = x509.load_der_x509_certificate(raw)
        _, _, signature = der.element(raw).parts()
        _expect(signature.body[:1], b"\0")  # no unused bits, which the library would read over
        _name(found), found.subject, found.extensions, found.public_key()
        _ = found.not_valid_before_utc, found.not_valid_after_utc
    except Exception as err:  # each sort of damage has an exception of its own
        raise der.DerError("a certificate is damaged") from err
    return found


def _expect(found: str | bytes, wanted: str | bytes) -> None:
    if found != wanted:
        raise der.DerError("a field has another value than it may have")


def _parameterless(algorithm: der.Element) -> str:
    """Its name; the parameters are none, or the nothing that is written down."""
    kind, *parameters = algorithm.expect(der.SEQUENCE).parts()
    if parameters:
        _expect(b"".join(part.raw for part in parameters), der.encode(der.NULL, b""))
    return der.oid_text(kind)


def _attributes(field: der.Element) -> dict[str, der.Element]:
    """The first value of each by its type; what verification needs must be there once."""
    found: dict[str, der.Element] = {}
    for attribute in field.parts():
        kind, values = attribute.expect(der.SEQUENCE).parts()
        name = der.oid_text(kind)
        if name in found:
            raise der.DerError(f"attribute {name} stands there twice")
        [found[name]] = values.expect(der.SET).parts()
    for name in (CONTENT_TYPE, DIGEST, SIGNING_TIME):
        if name not in found:
            raise der.DerError(f"attribute {name} is missing")
    return found


def _hash(algorithm: der.Element) -> hashes.HashAlgorithm:
    name = _parameterless(algorithm)
    if name not in _HASHES:
        raise der.DerError(f"hash algorithm {name} is not supported")
    return _HASHES[name]()


def _name(certificate: x509.Certificate) -> bytes:
    """Issuer and serial number, as a signature names its certificate."""
    number = certificate.serial_number
    return der.sequence(certificate.issuer.public_bytes(), der.integer(number))


def _check_signature(leaf: x509.Certificate, claim: _Claim) -> None:
    digest = hashes.Hash(claim.hash)
    digest.update(claim.content)
    if digest.finalize() != claim.digest:
        raise DamagedError("what was signed was changed afterwards")
    key = leaf.public_key()
    if claim.scheme not in _SCHEMES:
        raise DamagedError("the signature is of a kind that is not supported")
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(claim.signature, claim.attributes, padding.PKCS1v15(), claim.hash)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(claim.signature, claim.attributes, ec.ECDSA(claim.hash))
        else:
            raise StrangerError("the signer's key is neither RSA nor on an elliptic curve")
    except InvalidSignature as err:
        raise DamagedError("the signature does not belong to what was signed") from err


def _check_chain(
    leaf: x509.Certificate,
    given: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    when: datetime,
) -> None:
    """From the signer's certificate to an anchor, each of them valid at the time of signing."""
    who = leaf.subject.rfc4514_string()
    if not _may_sign(leaf):
        raise StrangerError(f"the certificate of {who} is not made for signing bundles")
    current = leaf
    for _ in range(_DEPTH):
        _check_time(current, when)
        for anchor in anchors:
            if _issued(current, anchor):
                _check_time(anchor, when)
                return
        above = next((c for c in given if c != current and _issued(current, c)), None)
        if above is None:
            break
        current = above
    if any(current.issuer == anchor.subject and _same_key(current, anchor) for anchor in anchors):
        raise DamagedError(f"the certificate of {who} was changed after it was issued")
    raise StrangerError(f"it was signed by {who}, whom no certificate of the keyring vouches for")


def _issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    if child.issuer != parent.subject or not _is_authority(parent):
        return False
    try:
        child.verify_directly_issued_by(parent)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _same_key(child: x509.Certificate, parent: x509.Certificate) -> bool:
    try:
        wanted = child.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        shown = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return wanted.value.key_identifier == shown.value.digest


def _is_authority(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    try:
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound as err:
        return err.oid == x509.KeyUsage.oid


def _may_sign(certificate: x509.Certificate) -> bool:
    """OpenSSL's purpose "smimesign", which RAUC asks for where it is told no other."""
    extensions = certificate.extensions
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not any(purpose in purposes for purpose in _PURPOSES):
            return False
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.content_commitment


def _check_time(certificate: x509.Certificate, when: datetime) -> None:
    if not certificate.not_valid_before_utc <= when <= certificate.not_valid_after_utc:
        who = certificate.subject.rfc4514_string()
        raise StrangerError(f"the certificate of {who} was not valid when the bundle was signed")
