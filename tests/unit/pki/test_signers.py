"""Each signer signs what is its own and refuses the rest for good."""

import ipaddress
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from controlplane.pki.certificates import Authority, new_key, self_signed
from controlplane.pki.signers import (
    CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    NotSignable,
    Signers,
    Wish,
)

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
NODE = "system:node:pi"
DNS, IP = x509.DNSName("pi"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))


def authority(name: str) -> Authority:
    key = new_key()
    return Authority(key=key, chain=(self_signed(name, key, NOW),), pem=b"")


CLIENT_CA, SERVING_CA = authority("client"), authority("serving")
SIGNERS = Signers(client=CLIENT_CA, serving=SERVING_CA)


def request(name: str, group: str, *sans: x509.GeneralName) -> bytes:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, group),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    return builder.sign(new_key(), hashes.SHA256()).public_bytes(Encoding.PEM)


def sign(signer: str, usages: str, pem: bytes, requestor: str = NODE) -> x509.Certificate:
    wish = Wish(request=pem, usages=tuple(usages.split(",")), lifetime=None, requestor=requestor)
    return x509.load_pem_x509_certificate(SIGNERS.sign(signer, wish, NOW))


def test_each_signs_with_its_authority() -> None:
    client = sign(CLIENT, "client auth", request("jane", "devs"))
    client.verify_directly_issued_by(CLIENT_CA.certificate)
    kubelet = sign(KUBELET_CLIENT, "client auth,digital signature", request(NODE, "system:nodes"))
    kubelet.verify_directly_issued_by(CLIENT_CA.certificate)
    usages = "server auth,digital signature,key encipherment"
    serving = sign(KUBELET_SERVING, usages, request(NODE, "system:nodes", DNS, IP))
    serving.verify_directly_issued_by(SERVING_CA.certificate)
    assert "example.com/other" not in SIGNERS


NODE_REQUEST = request(NODE, "system:nodes")


@pytest.mark.parametrize(
    ("signer", "usages", "pem", "why"),
    [
        (CLIENT, "client auth,server auth", NODE_REQUEST, "invalid usage for client certificate"),
        (CLIENT, "digital signature", NODE_REQUEST, "missing required usage"),
        (KUBELET_CLIENT, "client auth", NODE_REQUEST, "usages did not match"),
        (KUBELET_CLIENT, "client auth", request(NODE, "devs"), "organization is not system:nodes"),
        (KUBELET_CLIENT, "client auth", request("pi", "system:nodes"), "common name does not"),
        (
            KUBELET_CLIENT,
            "client auth,digital signature",
            request(NODE, "system:nodes", DNS),
            "DNS subjectAltNames are not allowed",
        ),
        (KUBELET_SERVING, "server auth", NODE_REQUEST, "DNS or IP subjectAltName is required"),
        (
            KUBELET_SERVING,
            "server auth,digital signature",
            request(NODE, "system:nodes", DNS, x509.RFC822Name("a@b.example")),
            "Email subjectAltNames are not allowed",
        ),
        (
            KUBELET_SERVING,
            "server auth,digital signature",
            request("system:node:other", "system:nodes", DNS),
            "the requestor is not the node",
        ),
        (CLIENT, "client auth", b"nonsense", "(?i)pem"),
    ],
)
def test_what_is_none_of_its_business_is_refused(
    signer: str, usages: str, pem: bytes, why: str
) -> None:
    with pytest.raises(NotSignable, match=why):
        sign(signer, usages, pem)
