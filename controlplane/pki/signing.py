"""
Signing what others ask for: CertificateSigningRequests and nodes that join.

Whether a request may be signed was decided before; here it only becomes a
certificate. As all of ours it begins in 1970; see :mod:`controlplane.pki.certificates`.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from controlplane.pki.certificates import (
    BEGINNING,
    FLOOR,
    LEAF_LIFE,
    Authority,
    authority_identifier,
    certificate_pem,
)

_EXTENDED = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
}
SHORTEST = timedelta(seconds=600)


def sign_request(
    authority: Authority,
    request: bytes,
    *,
    usages: Iterable[str],
    lifetime: timedelta | None,
    now: datetime,
) -> bytes:
    """
    The certificate with its chain, in PEM.

    ``request``: PEM. ``usages``: as in ``spec.usages`` of a
    CertificateSigningRequest. ``lifetime``: what was asked for, at most a year
    and no longer than the CA lives. ``ValueError`` for a request that is none
    or is not signed by its own key.
    """
    parsed = x509.load_pem_x509_csr(request)
    if not parsed.is_signature_valid:
        raise ValueError("the request is not signed by the key it names")
    public_key = parsed.public_key()
    supported = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
    if not isinstance(public_key, supported):
        raise ValueError(f"unsupported kind of key: {type(public_key).__name__}")
    issuer, wanted = authority.certificate, set(usages)
    life = min(max(lifetime or LEAF_LIFE, SHORTEST), LEAF_LIFE)
    end = min(max(now, FLOOR) + life, issuer.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(parsed.subject)
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGINNING)
        .not_valid_after(end.replace(microsecond=0))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_identifier(issuer), critical=False)
    )
    key_usage = _key_usage(wanted)
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    extended = [oid for name, oid in _EXTENDED.items() if name in wanted]
    if extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    names = _names(parsed)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return certificate_pem([certificate, *authority.intermediates])


def _key_usage(usages: set[str]) -> x509.KeyUsage | None:
    """None where no use of the key itself was asked for: no bit set would forbid them all."""
    usage = x509.KeyUsage(
        digital_signature=bool(usages & {"digital signature", "signing"}),
        content_commitment="content commitment" in usages,
        key_encipherment="key encipherment" in usages,
        data_encipherment="data encipherment" in usages,
        key_agreement="key agreement" in usages,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    asked = usage.digital_signature or usage.content_commitment or usage.key_encipherment
    return usage if asked or usage.data_encipherment or usage.key_agreement else None


def _names(request: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
