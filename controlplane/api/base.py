"""
The contracts between the steps of a request: who asks, whether they may, what admission sees.

The order of the steps stands in ``app.py`` alone: authentication, authorisation,
route, decode, mutating admission, defaults and validation, validating
admission, store.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from controlplane.client.base import Reads
from controlplane.objects.kinds import Kind

ANONYMOUS = "system:anonymous"
AUTHENTICATED_GROUP = "system:authenticated"
UNAUTHENTICATED_GROUP = "system:unauthenticated"
MASTERS_GROUP = "system:masters"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a request brought along; each part empty when it did not."""

    peer_certificate: bytes = b""  # DER, already verified against the client CA by TLS
    bearer_token: str = ""
    headers: Mapping[str, str] = field(
        default_factory=dict
    )  # lower-case names, repeated ones one a line: front proxy


class Authenticator(Protocol):
    async def authenticate(self, credentials: Credentials) -> User | None:
        """None: not mine. Raises 401 (:class:`StatusError`) for mine but wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What an authorizer decides on; ``path`` is set for non-resource requests only."""

    user: User
    # get list watch create update patch delete deletecollection, or the HTTP method in lower case.
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""  # plural
    subresource: str = ""
    namespace: str = ""
    name: str = ""  # of a list or watch: from the field selector metadata.name=…
    path: str = ""
    # Of a list, watch or deletecollection, as in the URL: nodes may read what is theirs by it.
    field_selector: str = ""


class Decision(enum.Enum):
    ALLOW = enum.auto()
    DENY = enum.auto()
    NO_OPINION = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRule:
    verbs: tuple[str, ...]
    api_groups: tuple[str, ...]
    resources: tuple[str, ...]
    resource_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NonResourceRule:
    verbs: tuple[str, ...]
    urls: tuple[str, ...]


Rule = ResourceRule | NonResourceRule


class Authorizer(Protocol):
    def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        """The decision and its reason, for the audit and for SubjectAccessReview."""

    def rules(self, user: User, namespace: str) -> Iterable[Rule]:
        """What the user may do there, for SelfSubjectRulesReview."""


class Operation(enum.Enum):
    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


@dataclass(slots=True, kw_only=True)
class AdmissionRequest:
    """
    One write on its way to the store. ``object`` is the one thing a mutator may change, in place.
    """

    operation: Operation
    kind: Kind
    subresource: str
    namespace: str
    name: str  # may be empty at a create with generateName
    user: User
    object: dict[str, Any] | None  # None for DELETE
    old: Mapping[str, Any] | None  # None for CREATE
    options: Mapping[str, Any]
    dry_run: bool
    reads: Reads
    warnings: list[str] = field(default_factory=list)  # become Warning headers
    # Of mutating webhooks: the object before the first change by one, which of them want to see
    # it after such a change, which of these had their turn before the last one; ``again``: what
    # they said so when it is the second time.
    unchanged: Mapping[str, Any] | None = None
    called: set[tuple[str, str]] = field(default_factory=set)
    asked_again: set[tuple[str, str]] = field(default_factory=set)
    again: frozenset[tuple[str, str]] | None = None


class Admission(Protocol):
    """A built-in admission plugin; named as kube-apiserver names it."""

    name: str

    async def mutate(self, request: AdmissionRequest) -> None:
        """Change ``request.object``; raise :class:`StatusError` to refuse."""

    async def validate(self, request: AdmissionRequest) -> None:
        """Raise :class:`StatusError` to refuse; must change nothing."""


class Reviews(Protocol):
    """The kinds that are asked, not stored: token and access reviews, and token requests."""

    async def create(
        self, kind: Kind, *, namespace: str, body: Mapping[str, Any], user: User
    ) -> dict[str, Any]:
        """The review with its status filled in: TokenReview, SubjectAccessReview, …"""

    async def issue_token(
        self, *, namespace: str, service_account: str, body: Mapping[str, Any], user: User
    ) -> dict[str, Any]:
        """A TokenRequest with its status: ``serviceaccounts/token``."""

    def openid_configuration(self) -> dict[str, Any]:
        """/.well-known/openid-configuration"""

    def jwks(self) -> dict[str, Any]:
        """/openid/v1/jwks"""
