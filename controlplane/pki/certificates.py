"""
Making certificates and judging those that exist. No files here.

**Clocks.** A board without a battery may believe in 1970, in the year of its
image or in a year to come, and learn better a minute later. So no certificate
of ours ever begins in the future: all begin in 1970. Ends are counted
from ``now``, or from :data:`FLOOR` where ``now`` is before it, since no true
clock can be. Where the true date is not known (:func:`is_sure`), a leaf lives as
long as its CA; the next start with a clock that is sure replaces it by one of 365
days. Nothing about time is an error: the worst is a certificate made again.

Profiles follow RFC 5280, including the identifiers that OpenSSL's strict mode
(the default of Python 3.13) asks for.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.objects.moment import BUILD, is_sure

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
FLOOR = BUILD
CA_LIFE = timedelta(days=3650)
CA_LIFE_UNSURE = 3 * CA_LIFE  # the board may have lain on a shelf for years
LEAF_LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A CA that can sign; ``chain`` is its own certificate and what stands above it."""

    key: PrivateKey
    chain: tuple[x509.Certificate, ...]
    pem: bytes  # the file as it is: join tokens carry its hash

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """What a leaf must bring along for clients that trust only the root."""
        return tuple(c for c in self.chain if c.issuer != c.subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What a leaf certificate shall say."""

    common_name: str
    organizations: tuple[str, ...] = ()
    server: bool = False  # for serving; otherwise for clients
    sans: tuple[str, ...] = ()  # DNS names and addresses


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def certificate_pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def self_signed(name: str, key: PrivateKey, now: datetime) -> x509.Certificate:
    """A CA. Its name carries the key's id: two CAs of one name would confuse verifiers."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"{name}@{identifier.digest.hex()[:12]}")]
    )
    life = CA_LIFE if is_sure(now) else CA_LIFE_UNSURE
    builder = _builder(subject, subject, key.public_key(), max(now, FLOOR) + life)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=True, encipher=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )


def issue(
    authority: Authority, leaf: Leaf, public_key: PublicKey, now: datetime
) -> x509.Certificate:
    issuer = authority.certificate
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if leaf.server else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(_subject(leaf), issuer.subject, public_key, leaf_end(issuer, now))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            _key_usage(sign_certificates=False, encipher=isinstance(public_key, rsa.RSAPublicKey)),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_identifier(issuer), critical=False)
    )
    if leaf.sans:
        names = x509.SubjectAlternativeName([_general_name(san) for san in leaf.sans])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def leaf_end(issuer: x509.Certificate, now: datetime) -> datetime:
    return now + LEAF_LIFE if is_sure(now) else issuer.not_valid_after_utc


def wrong_with(
    certificates: Sequence[x509.Certificate],
    key: PrivateKey,
    *,
    leaf: Leaf,
    authority: Authority,
    now: datetime,
    in_use: bool = False,
) -> str:
    """
    Why an existing leaf must be made again; "": it need not.

    ``in_use``: only for its end or its names. A board that learns the time some minutes after each
    of its starts would otherwise make every certificate twice a day.
    """
    certificate = certificates[0]
    if certificate.public_key() != key.public_key():
        return "belongs to another key"
    if certificate.subject != _subject(leaf) or _sans(certificate) != frozenset(leaf.sans):
        return "names changed"
    if tuple(certificates[1:]) != authority.intermediates:
        return "the chain of the CA changed"
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return "signed by another CA"
    if in_use:
        return "expires soon" if certificate.not_valid_after_utc - now < RENEW_BEFORE else ""
    return _wrong_time(certificate, authority, now)


def _wrong_time(certificate: x509.Certificate, authority: Authority, now: datetime) -> str:
    end = certificate.not_valid_after_utc
    if not is_sure(now):
        as_long_as_its_ca = end >= authority.certificate.not_valid_after_utc
        return "" if as_long_as_its_ca else "the clock cannot be right"
    if end - now < RENEW_BEFORE:
        return "expires soon"
    # A day of slack: daily work on the clock must not cost a certificate.
    if end - now > LEAF_LIFE + timedelta(days=1):
        return "made under another clock"
    return ""


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: PublicKey, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGINNING)
        .not_valid_after(end.replace(microsecond=0))
    )


def _subject(leaf: Leaf) -> x509.Name:
    organizations = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in leaf.organizations
    ]
    # Node names may be longer than the 64 characters of X.520; no Kubernetes verifier minds.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        common_name = x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name, _validate=False)
    return x509.Name([*organizations, common_name])


def _general_name(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def _sans(certificate: x509.Certificate) -> frozenset[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(name.value) for name in names)


def authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        public_key = issuer.public_key()
        assert isinstance(public_key, PublicKey)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, sign_certificates: bool, encipher: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=encipher,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
