"""
Service account tokens: JSON Web Tokens that this server signs and checks.

A token is bound to a ServiceAccount and maybe to a Pod, a Secret or a Node: it
dies with the first of them, so every use looks all of them up; only the
signature's check is remembered. Tokens of ``kubernetes.io/service-account-token``
Secrets carry the older claims and have no end.

``nbf`` and ``iat`` are written, as others read them, but not checked: nobody
signs for the future here, so all that a check could find is that the clock was
put right since, and that must not break every pod of a node. For the same reason
a token lives as long as it was made for, however the clock was set meanwhile.

ES256 where ``service.key`` is an EC key, RS256 where it is RSA. Sources: RFC 7519,
7515, 7638 (key ids), KEP-1205 (bound tokens), KEP-4193 (node and credential id).
"""

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from controlplane.objects.moment import elapsed
from controlplane.pki.pem import parse_private_keys

LEGACY_ISSUER = "kubernetes/serviceaccount"
LEEWAY = timedelta(seconds=60)
_COORDINATE = 32  # bytes, of P-256
_REMEMBERED = 512

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class TokenError(Exception):
    """A token of ours in form, but not valid; the text is safe to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An object by name and uid, as claims carry it."""

    name: str
    uid: str

    def claim(self) -> dict[str, str]:
        return {key: value for key, value in (("name", self.name), ("uid", self.uid)) if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a signed token says."""

    namespace: str
    service_account: Reference
    pod: Reference | None = None
    secret: Reference | None = None
    node: Reference | None = None
    audiences: tuple[str, ...] = ()  # empty: the API server's own (legacy tokens)
    issued: int | None = None  # Unix seconds
    expires: int | None = None  # Unix seconds; None: never (legacy tokens)
    jti: str = ""
    legacy: bool = False


def username(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


class ServiceAccountTokens:
    """
    Signs and reads tokens; who they name is looked up elsewhere.

    Its mutable state is the memory of checked signatures, by the token's digest.
    """

    def __init__(
        self, key_pem: bytes, *, issuer: str, audiences: Sequence[str], jwks_uri: str
    ) -> None:
        """``key_pem``: the first key signs, all verify; ``audiences``: the API server's own."""
        keys = parse_private_keys(key_pem)
        self.issuer = issuer
        self.audiences = tuple(audiences)
        self._jwks_uri = jwks_uri
        self._signing_key = keys[0]
        self._public = {_key_id(key.public_key()): key.public_key() for key in keys}
        header = {"alg": _algorithm(keys[0].public_key()), "kid": _key_id(keys[0].public_key())}
        self._header = _encode(orjson.dumps(header))
        self._checked: OrderedDict[bytes, Claims] = OrderedDict()

    def sign(
        self,
        claims: Claims,
        *,
        now: datetime,
        lifetime: timedelta,
        warn_after: timedelta | None = None,
    ) -> str:
        """``warn_after``: when a use shows that a client never reloads its token."""
        begin = int(now.timestamp())
        private: dict[str, Any] = {
            "namespace": claims.namespace,
            "serviceaccount": claims.service_account.claim(),
        }
        for name, reference in (
            ("pod", claims.pod),
            ("secret", claims.secret),
            ("node", claims.node),
        ):
            if reference is not None:
                private[name] = reference.claim()
        if warn_after is not None:
            private["warnafter"] = begin + int(warn_after.total_seconds())
        return self._sign(
            {
                "aud": list(claims.audiences),
                "exp": begin + int(lifetime.total_seconds()),
                "iat": begin,
                "iss": self.issuer,
                "jti": claims.jti,
                "kubernetes.io": private,
                "nbf": begin,
                "sub": username(claims.namespace, claims.service_account.name),
            }
        )

    def sign_legacy(self, *, namespace: str, service_account: Reference, secret: str) -> str:
        """For a Secret of type ``kubernetes.io/service-account-token``."""
        prefix = "kubernetes.io/serviceaccount"
        return self._sign(
            {
                "iss": LEGACY_ISSUER,
                f"{prefix}/namespace": namespace,
                f"{prefix}/secret.name": secret,
                f"{prefix}/service-account.name": service_account.name,
                f"{prefix}/service-account.uid": service_account.uid,
                "sub": username(namespace, service_account.name),
            }
        )

    def read(self, token: str, now: datetime) -> Claims | None:
        """None: not one of ours. Raises :class:`TokenError` for an expired one or a forgery."""
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._checked.get(digest)
        if claims is None:
            claims = self._check(token)
            if claims is None:
                return None
            self._checked[digest] = claims
            if len(self._checked) > _REMEMBERED:
                self._checked.popitem(last=False)
        else:
            self._checked.move_to_end(digest)
        if _has_expired(claims, now):
            raise TokenError("service account token has expired")
        return claims

    def openid_configuration(self) -> dict[str, Any]:
        algorithms = sorted({_algorithm(key) for key in self._public.values()})
        return {
            "issuer": self.issuer,
            "jwks_uri": self._jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        }

    def jwks(self) -> dict[str, Any]:
        return {"keys": [_jwk(key_id, key) for key_id, key in self._public.items()]}

    def _sign(self, payload: Mapping[str, Any]) -> str:
        signed = self._header + b"." + _encode(orjson.dumps(payload))
        key = self._signing_key
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
        return (signed + b"." + _encode(signature)).decode()

    def _check(self, token: str) -> Claims | None:
        signed, _, signature = token.rpartition(".")
        try:
            header_part, payload_part = signed.split(".")
            header = orjson.loads(_decode(header_part))
            payload = orjson.loads(_decode(payload_part))
        except ValueError:
            return None
        if not isinstance(payload, dict) or not isinstance(header, dict):
            return None
        if payload.get("iss") not in (self.issuer, LEGACY_ISSUER):
            return None
        self._verify(header, signed.encode(), signature)
        return _claims(payload)

    def _verify(self, header: Mapping[str, Any], signed: bytes, signature: str) -> None:
        # A token made elsewhere with a key of ours may name no key.
        named = self._public.get(str(header.get("kid", "")))
        keys = [named] if named is not None else list(self._public.values())
        try:
            raw = _decode(signature)
        except ValueError as err:
            raise TokenError("invalid signature") from err
        # The key decides on the algorithm, never the token: RFC 8725, section 3.1.
        if not any(
            header.get("alg") == _algorithm(key) and _is_signed_by(key, signed, raw) for key in keys
        ):
            raise TokenError("invalid signature")


def _has_expired(claims: Claims, now: datetime) -> bool:
    if claims.expires is None:
        return False
    if claims.issued is None:
        return now.timestamp() > claims.expires + LEEWAY.total_seconds()
    life = timedelta(seconds=claims.expires - claims.issued)
    return elapsed(datetime.fromtimestamp(claims.issued, UTC), now) > life + LEEWAY


def _is_signed_by(key: PublicKey, signed: bytes, signature: bytes) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        elif len(signature) != 2 * _COORDINATE:
            return False
        else:
            r = int.from_bytes(signature[:_COORDINATE], "big")
            s = int.from_bytes(signature[_COORDINATE:], "big")
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _claims(payload: Mapping[str, Any]) -> Claims:
    try:
        claims = (
            _legacy_claims(payload) if payload["iss"] == LEGACY_ISSUER else _bound_claims(payload)
        )
        subject = payload["sub"]
    except (KeyError, TypeError, AttributeError) as err:
        raise TokenError("service account token claims could not be validated") from err
    if subject != username(claims.namespace, claims.service_account.name):
        raise TokenError("sub claim is invalid")
    return claims


def _bound_claims(payload: Mapping[str, Any]) -> Claims:
    private = payload["kubernetes.io"]
    audience = payload["aud"]
    account = _reference(private["serviceaccount"])
    if account is None:
        raise KeyError("serviceaccount")
    return Claims(
        namespace=private["namespace"],
        service_account=account,
        pod=_reference(private.get("pod")),
        secret=_reference(private.get("secret")),
        node=_reference(private.get("node")),
        audiences=(audience,) if isinstance(audience, str) else tuple(audience),
        issued=int(payload["iat"]) if "iat" in payload else None,
        expires=int(payload["exp"]),
        jti=payload.get("jti", ""),
    )


def _legacy_claims(payload: Mapping[str, Any]) -> Claims:
    prefix = "kubernetes.io/serviceaccount"
    return Claims(
        namespace=payload[f"{prefix}/namespace"],
        service_account=Reference(
            name=payload[f"{prefix}/service-account.name"],
            uid=payload[f"{prefix}/service-account.uid"],
        ),
        secret=Reference(name=payload[f"{prefix}/secret.name"], uid=""),
        legacy=True,
    )


def _reference(claim: Mapping[str, str] | None) -> Reference | None:
    return Reference(name=claim["name"], uid=claim.get("uid", "")) if claim else None


def _algorithm(key: PublicKey) -> str:
    return "RS256" if isinstance(key, rsa.RSAPublicKey) else "ES256"


def _key_id(key: PublicKey) -> str:
    """The thumbprint of RFC 7638: the same key has the same id wherever it is used."""
    return _encode(hashlib.sha256(orjson.dumps(_public_members(key))).digest()).decode()


def _jwk(key_id: str, key: PublicKey) -> dict[str, str]:
    return {"use": "sig", "kid": key_id, "alg": _algorithm(key), **_public_members(key)}


def _public_members(key: PublicKey) -> dict[str, str]:
    """The required members in lexical order."""
    if isinstance(key, rsa.RSAPublicKey):
        rsa_numbers = key.public_numbers()
        return {
            "e": _encode_number(rsa_numbers.e),
            "kty": "RSA",
            "n": _encode_number(rsa_numbers.n),
        }
    numbers = key.public_numbers()
    x, y = (_encode(n.to_bytes(_COORDINATE, "big")).decode() for n in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def _encode_number(number: int) -> str:
    return _encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode()


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
