"""Signing and reading service account tokens."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from controlplane.api.tokens import Claims, Reference, ServiceAccountTokens, TokenError

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
ISSUER = "https://kubernetes.default.svc.cluster.local"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
CLAIMS = Claims(
    namespace="ns",
    service_account=Reference(name="bot", uid="u1"),
    pod=Reference(name="web-0", uid="u2"),
    node=Reference(name="edge-1", uid="u3"),
    audiences=(ISSUER,),
    jti="7",
)


def pem(key: Any) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    written: bytes = key.private_bytes(encoding, form, serialization.NoEncryption())
    return written


def signer(*keys: Any) -> ServiceAccountTokens:
    text = b"".join(pem(key) for key in keys or (EC_KEY,))
    return ServiceAccountTokens(text, issuer=ISSUER, audiences=(ISSUER,), jwks_uri="https://x/jwks")


def parts(token: str) -> list[Any]:
    return [orjson.loads(_bytes(part)) for part in token.split(".")[:2]]


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.parametrize("key", [EC_KEY, RSA_KEY], ids=["ec", "rsa"])
def test_reads_back_what_it_signed(key: Any) -> None:
    tokens = signer(key)
    token = tokens.sign(CLAIMS, now=NOW, lifetime=timedelta(hours=1))
    expires = int((NOW + timedelta(hours=1)).timestamp())
    for _ in range(2):
        read = tokens.read(token, NOW)
        assert read is not None
        assert (read.namespace, read.service_account) == ("ns", CLAIMS.service_account)
        assert (read.pod, read.node, read.jti, read.expires) == (
            CLAIMS.pod,
            CLAIMS.node,
            "7",
            expires,
        )


def test_claims_are_those_that_clients_know() -> None:
    token = signer().sign(
        CLAIMS, now=NOW, lifetime=timedelta(days=365), warn_after=timedelta(seconds=3607)
    )
    begin = int(NOW.timestamp())
    assert parts(token)[1] == {
        "aud": [ISSUER],
        "exp": begin + 365 * 86400,
        "iat": begin,
        "iss": ISSUER,
        "jti": "7",
        "kubernetes.io": {
            "namespace": "ns",
            "serviceaccount": {"name": "bot", "uid": "u1"},
            "pod": {"name": "web-0", "uid": "u2"},
            "node": {"name": "edge-1", "uid": "u3"},
            "warnafter": begin + 3607,
        },
        "nbf": begin,
        "sub": "system:serviceaccount:ns:bot",
    }


@pytest.mark.parametrize("key", [EC_KEY, RSA_KEY], ids=["ec", "rsa"])
def test_others_can_verify_with_the_published_keys(key: Any) -> None:
    tokens = signer(key)
    token = tokens.sign(CLAIMS, now=NOW, lifetime=timedelta(hours=1))
    header = parts(token)[0]
    jwk = next(jwk for jwk in tokens.jwks()["keys"] if jwk["kid"] == header["kid"])
    assert tokens.openid_configuration()["id_token_signing_alg_values_supported"] == [jwk["alg"]]
    signed, _, signature = token.rpartition(".")
    raw = _bytes(signature)

    def number(name: str) -> int:
        return int.from_bytes(_bytes(jwk[name]), "big")

    if jwk["kty"] == "EC":
        curve = ec.EllipticCurvePublicNumbers(number("x"), number("y"), ec.SECP256R1())
        der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        curve.public_key().verify(der, signed.encode(), ec.ECDSA(hashes.SHA256()))
    else:
        public = rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
        public.verify(raw, signed.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_an_expired_token_is_refused_after_a_minute_of_leeway() -> None:
    tokens = signer()
    token = tokens.sign(CLAIMS, now=NOW, lifetime=timedelta(hours=1))
    assert tokens.read(token, NOW + timedelta(minutes=60, seconds=59)) is not None
    with pytest.raises(TokenError, match="expired"):
        tokens.read(token, NOW + timedelta(minutes=62))


def test_a_clock_that_was_put_back_breaks_no_token() -> None:
    tokens = signer()
    token = tokens.sign(CLAIMS, now=NOW + timedelta(days=1095), lifetime=timedelta(hours=1))
    assert tokens.read(token, NOW) is not None


def test_an_old_key_still_verifies() -> None:
    token = signer(RSA_KEY).sign(CLAIMS, now=NOW, lifetime=timedelta(hours=1))
    assert signer(EC_KEY, RSA_KEY).read(token, NOW) is not None


def test_a_forged_token_is_refused() -> None:
    token = signer(ec.generate_private_key(ec.SECP256R1())).sign(
        CLAIMS, now=NOW, lifetime=timedelta(hours=1)
    )
    with pytest.raises(TokenError, match="signature"):
        signer().read(token, NOW)


def test_the_header_cannot_choose_the_algorithm() -> None:
    token = signer().sign(CLAIMS, now=NOW, lifetime=timedelta(hours=1))
    _, payload, _ = token.split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    with pytest.raises(TokenError, match="signature"):
        signer().read(f"{header}.{payload}.", NOW)


@pytest.mark.parametrize("token", ["", "a.b", "abcdef.0123456789abcdef", "x.y.z", "server:pw"])
def test_what_is_no_token_of_ours_is_left_to_others(token: str) -> None:
    assert signer().read(token, NOW) is None


def test_a_legacy_token_names_its_secret_and_never_ends() -> None:
    tokens = signer()
    token = tokens.sign_legacy(
        namespace="ns", service_account=Reference(name="bot", uid="u1"), secret="bot-token"
    )
    read = tokens.read(token, NOW + timedelta(days=9999))
    assert read is not None
    assert read.legacy
    assert read.secret == Reference(name="bot-token", uid="")
