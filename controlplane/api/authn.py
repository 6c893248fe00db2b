"""
Who asks: one answer for each kind of proof, tried in a fixed order.

Front proxy, client certificate, bearer or basic token, and with none of them
the anonymous user, whom RBAC lets see health and version only. A proof that is
wrong is a 401 even though having none would do.

TLS has verified the peer's certificate against both the client CA and the
request-header CA; which of the two signed it decides what it may say.
"""

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.api.base import (
    ANONYMOUS,
    AUTHENTICATED_GROUP,
    UNAUTHENTICATED_GROUP,
    Authenticator,
    Credentials,
    User,
)
from controlplane.client.base import Object, Reads
from controlplane.objects import meta
from controlplane.objects.errors import StatusError, unauthorized
from controlplane.objects.moment import is_over
from controlplane.objects.resources import SECRETS

JOIN_USER = "system:pinnace-server-token"
JOIN_GROUP = "pinnace:server"
BOOTSTRAPPERS_GROUP = "system:bootstrappers"

_BOOTSTRAP_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_BOOTSTRAP_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_REMEMBERED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """A peer's certificate, parsed once."""

    user: User
    by_client_ca: bool
    by_proxy_ca: bool
    ends: datetime


class _Certificates:
    """
    Parses and judges peer certificates.

    Its mutable state is what it remembers of the last ones, by their bytes: a
    client shows the same certificate with every request.
    """

    def __init__(self, client_ca: bytes, proxy_ca: bytes) -> None:
        self._client_ca = x509.load_pem_x509_certificates(client_ca)
        self._proxy_ca = x509.load_pem_x509_certificates(proxy_ca)
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()

    def peer(self, der: bytes, now: datetime) -> _Peer:
        peer = self._peers.get(der)
        if peer is None:
            peer = self._peers[der] = self._parse(der)
            if len(self._peers) > _REMEMBERED:
                self._peers.popitem(last=False)
        # TLS would check the end at the handshake only; connections live for weeks.
        if is_over(peer.ends, now):
            raise unauthorized()
        return peer

    def _parse(self, der: bytes) -> _Peer:
        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError as err:
            raise unauthorized() from err
        fingerprint = hashlib.sha256(der).hexdigest()
        subject = certificate.subject
        names = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        is_client = _is_for_clients(certificate)
        return _Peer(
            user=User(
                name=names[-1] if names else "",
                groups=tuple(groups),
                extra={
                    "authentication.kubernetes.io/credential-id": (f"X509SHA256={fingerprint}",)
                },
            ),
            by_client_ca=is_client and _is_signed_by(certificate, self._client_ca),
            by_proxy_ca=is_client and _is_signed_by(certificate, self._proxy_ca),
            ends=certificate.not_valid_after_utc,
        )


def _is_signed_by(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def _is_for_clients(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    any_use = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage or any_use in usage


class CertificateAuthenticator:
    """Common name and organizations of a client certificate; or whom a front proxy names."""

    def __init__(
        self,
        *,
        client_ca: bytes,  # PEM
        proxy_ca: bytes,  # PEM
        proxy_names: frozenset[str],  # common names that may speak for others
        clock: Callable[[], datetime],
    ) -> None:
        self._certificates = _Certificates(client_ca, proxy_ca)
        self._proxy_names = proxy_names
        self._clock = clock

    async def authenticate(self, credentials: Credentials) -> User | None:
        if not credentials.peer_certificate:
            return None
        peer = self._certificates.peer(credentials.peer_certificate, self._clock())
        named = proxied_user(credentials.headers)
        if named is not None and peer.by_proxy_ca and peer.user.name in self._proxy_names:
            return named
        if peer.by_client_ca and peer.user.name:
            return peer.user
        if peer.by_proxy_ca and named is None:
            return None
        raise unauthorized()


def proxied_user(headers: Mapping[str, str]) -> User | None:
    """
    The user in a front proxy's headers; None: names none.

    Repeated headers arrive one a line. A comma is a part of a value: groups of a
    directory have them, and taking one apart could make it one of ours.
    """
    name = headers.get("x-remote-user", "")
    if not name:
        return None
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in headers.items():
        if header.startswith("x-remote-extra-"):
            extra[unquote(header.removeprefix("x-remote-extra-"))] = _lines(value)
    return User(
        name=name,
        uid=headers.get("x-remote-uid", ""),
        groups=_lines(headers.get("x-remote-group", "")),
        extra=extra,
    )


def _lines(value: str) -> tuple[str, ...]:
    return tuple(line for line in value.split("\n") if line)


def _several(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


class JoinTokenAuthenticator:
    """
    The server's own token, by which agents and servers join: basic ``server:<password>`` or bearer.

    It names a user who may nothing in RBAC; the paths of joining ask for its group.
    """

    def __init__(self, password: str) -> None:
        self._password = password.encode()

    async def authenticate(self, credentials: Credentials) -> User | None:
        presented = _basic(credentials.headers) or _join_bearer(credentials.bearer_token)
        if presented is None:
            return None
        name, password = presented
        if name != "server" or not hmac.compare_digest(password.encode(), self._password):
            raise unauthorized()
        return User(name=JOIN_USER, groups=(JOIN_GROUP, BOOTSTRAPPERS_GROUP))


def _basic(headers: Mapping[str, str]) -> tuple[str, str] | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError as err:
        raise unauthorized() from err
    return name, password


def _join_bearer(bearer: str) -> tuple[str, str] | None:
    text = bearer.partition("::")[2] if bearer.startswith("K10") else bearer
    name, found, password = text.partition(":")
    return (name, password) if found else None


class BootstrapTokenAuthenticator:
    """Tokens ``id.secret`` kept in Secrets of kube-system; see the API doc of bootstrap tokens."""

    def __init__(self, reads: Reads, clock: Callable[[], datetime]) -> None:
        self._reads = reads
        self._clock = clock

    async def authenticate(self, credentials: Credentials) -> User | None:
        match = _BOOTSTRAP_TOKEN.fullmatch(credentials.bearer_token)
        if match is None:
            return None
        token_id, token_secret = match.groups()
        secret = self._reads.get(SECRETS, "kube-system", f"bootstrap-token-{token_id}")
        if secret is None or not self._is_valid(secret, token_id, token_secret):
            return None
        groups = _several(_data(secret, "auth-extra-groups"))
        if not all(_BOOTSTRAP_GROUP.fullmatch(group) for group in groups):
            return None
        return User(name=f"system:bootstrap:{token_id}", groups=(BOOTSTRAPPERS_GROUP, *groups))

    def _is_valid(self, secret: Object, token_id: str, token_secret: str) -> bool:
        return (
            secret.get("type") == "bootstrap.kubernetes.io/token"
            and not meta.is_deleting(secret)
            and hmac.compare_digest(_data(secret, "token-secret").encode(), token_secret.encode())
            and _data(secret, "token-id") == token_id
            and _data(secret, "usage-bootstrap-authentication") == "true"
            and not self._has_expired(_data(secret, "expiration"))
        )

    def _has_expired(self, expiration: str) -> bool:
        if not expiration:
            return False
        try:
            return meta.parse_time(expiration) < self._clock()
        except ValueError:
            return True


def _data(secret: Object, key: str) -> str:
    encoded = (secret.get("data") or {}).get(key, "")
    return base64.b64decode(encoded).decode(errors="replace")


class UnionAuthenticator:
    """The first that knows the proof wins; no proof at all is the anonymous user."""

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    async def authenticate(self, credentials: Credentials) -> User:
        """Raises 401 if proofs were shown and none holds."""
        refused: StatusError | None = None
        for authenticator in self._authenticators:
            try:
                user = await authenticator.authenticate(credentials)
            except StatusError as err:
                refused = err
                continue
            if user is not None:
                return with_authenticated_group(user)
        if refused is not None:
            raise refused
        if credentials.bearer_token:
            raise unauthorized()
        return User(name=ANONYMOUS, groups=(UNAUTHENTICATED_GROUP,))


def with_authenticated_group(user: User) -> User:
    if user.name == ANONYMOUS or AUTHENTICATED_GROUP in user.groups:
        return user
    return replace(user, groups=(*user.groups, AUTHENTICATED_GROUP))
