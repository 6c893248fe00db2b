"""
Writes the signature of a bundle: CMS signed data with the manifest inside, always the same bytes.

``openssl cms`` and ``rauc bundle`` put the current time into it; here the time is an argument, and
RSA signatures of the form PKCS #1 v1.5 have nothing random in them. With the digest of a
signature therefore everything in front of it is pinned.
Source: RFC 5652, sections 5 and 11.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from node.update import der
from node.update.signature import CONTENT_TYPE, DATA, DIGEST, RSA, SHA256, SIGNED_DATA, SIGNING_TIME


def sign(
    content: bytes,
    key: rsa.RSAPrivateKey,
    certificates: Sequence[x509.Certificate],
    when: datetime,
) -> bytes:
    """``certificates``: the signer's first, then those between it and the CA; DER."""
    algorithm = der.sequence(der.oid(SHA256))
    attributes = [
        _attribute(CONTENT_TYPE, der.oid(DATA)),
        _attribute(SIGNING_TIME, der.time(when)),
        _attribute(DIGEST, der.encode(der.OCTETS, hashlib.sha256(content).digest())),
    ]
    signed = der.set_of(attributes)
    signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    leaf = certificates[0]
    signer = der.sequence(
        der.integer(1),
        der.sequence(leaf.issuer.public_bytes(), der.integer(leaf.serial_number)),
        algorithm,
        der.encode(0xA0, der.element(signed).body),
        der.sequence(der.oid(RSA), der.encode(der.NULL, b"")),
        der.encode(der.OCTETS, signature),
    )
    inner = der.sequence(der.oid(DATA), der.encode(0xA0, der.encode(der.OCTETS, content)))
    chain = b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)
    data = der.sequence(
        der.integer(1),
        der.set_of([algorithm]),
        inner,
        der.encode(0xA0, chain),
        der.set_of([signer]),
    )
    return der.sequence(der.oid(SIGNED_DATA), der.encode(0xA0, data))


def _attribute(kind: str, value: bytes) -> bytes:
    return der.sequence(der.oid(kind), der.set_of([value]))
