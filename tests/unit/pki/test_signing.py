"""Certificates for those who ask."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.pki.certificates import Authority, certificate_pem, new_key, self_signed
from controlplane.pki.signing import sign_request

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
KEY = new_key()
CA = Authority(key=KEY, chain=(self_signed("ca", KEY, NOW),), pem=b"")
SUBJECT = x509.Name(
    [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "devs"),
        x509.NameAttribute(NameOID.COMMON_NAME, "jane"),
    ]
)


def request() -> bytes:
    names = x509.SubjectAlternativeName([x509.DNSName("jane.example.com")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(SUBJECT)
    signed = builder.add_extension(names, critical=False).sign(new_key(), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM)


def signed(lifetime: timedelta | None = None, now: datetime = NOW) -> x509.Certificate:
    usages = ["digital signature", "client auth"]
    pem = sign_request(CA, request(), usages=usages, lifetime=lifetime, now=now)
    return x509.load_pem_x509_certificate(pem)


def test_signs_subject_names_and_usages_as_asked() -> None:
    certificate = signed()
    certificate.verify_directly_issued_by(CA.certificate)
    assert certificate.subject == SUBJECT
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["jane.example.com"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.ca is False


def test_a_key_whose_use_was_not_asked_for_is_not_restricted() -> None:
    pem = sign_request(CA, request(), usages=["client auth"], lifetime=None, now=NOW)
    certificate = x509.load_pem_x509_certificate(pem)
    assert all(not isinstance(e.value, x509.KeyUsage) for e in certificate.extensions)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, timedelta(days=365)),
        (timedelta(days=30), timedelta(days=30)),
        (timedelta(days=3000), timedelta(days=365)),
        (timedelta(seconds=1), timedelta(minutes=10)),
    ],
)
def test_a_lifetime_is_within_bounds(asked: timedelta | None, given: timedelta) -> None:
    assert signed(asked).not_valid_after_utc - NOW == given


def test_a_certificate_does_not_outlive_its_authority() -> None:
    late = NOW + timedelta(days=3649)
    assert signed(now=late).not_valid_after_utc == CA.certificate.not_valid_after_utc


def test_what_is_no_request_is_refused() -> None:
    with pytest.raises(ValueError, match="PEM"):
        sign_request(CA, certificate_pem(CA.chain), usages=[], lifetime=None, now=NOW)
