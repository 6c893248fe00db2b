"""
One call of the API, whoever made it: the values that the verbs work with.

HTTP requests and the calls of the control plane's own clients become the same
:class:`Call`; the parts that the verbs need come together in :class:`Parts`.
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network
from typing import Any, Protocol

from controlplane.api.base import (
    ANONYMOUS,
    UNAUTHENTICATED_GROUP,
    Admission,
    Authenticator,
    Authorizer,
    Reviews,
    User,
)
from controlplane.api.cache import ObjectCache
from controlplane.client.base import Object
from controlplane.objects.errors import bad_request
from controlplane.objects.kinds import Kind, Kinds
from controlplane.objects.schema import Schemas
from controlplane.store.base import Store

NOBODY = User(name=ANONYMOUS, groups=(UNAUTHENTICATED_GROUP,))
FIELD_VALIDATION = ("Ignore", "Warn", "Strict")


class Conversion(Protocol):
    """Brings objects from one version of a kind into another."""

    async def convert(self, objects: Sequence[Object], to: Kind) -> Sequence[Object]:
        """In the same order; :class:`StatusError` where a conversion webhook fails."""


class Aggregator(Protocol):
    """Serves the groups of APIService objects that name a Service."""

    def serves(self, group: str, version: str) -> bool: ...

    async def relay(self, request: Any, user: User) -> Any:
        """An aiohttp request in, an aiohttp response out."""

    def discovery(self) -> Sequence[Mapping[str, Any]]:
        """APIGroupDiscovery entries of the aggregated groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Where Services get their addresses and ports, and which pods may be proxied to."""

    service_cidr: IPv4Network = field(default_factory=lambda: IPv4Network("10.43.0.0/16"))
    node_ports: tuple[int, int] = (30000, 32767)  # both inclusive
    reserved: frozenset[str] = frozenset()  # cluster addresses given out on request only
    loopback: bool = False  # whether pods are found on this machine's own, as in tests


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an API server is made of."""

    kinds: Kinds
    schemas: Schemas
    store: Store
    cache: ObjectCache
    clock: Callable[[], datetime]  # UTC, with tzinfo
    authenticators: Sequence[Authenticator] = ()
    authorizer: Authorizer | None = None  # None: everything is allowed (tests)
    admissions: Sequence[Admission] = ()
    reviews: Reviews | None = None
    conversion: Conversion | None = None
    aggregators: Sequence[Aggregator] = ()
    network: Network = field(default_factory=Network)
    kubelet_tls: ssl.SSLContext | None = None  # what kubelets are spoken to with
    closing: Sequence[Callable[[], Awaitable[None]]] = ()  # connections of the parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a write, from the query or from DeleteOptions."""

    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = ""  # "": Warn
    force: bool | None = None

    def as_object(self, kind: str) -> dict[str, Any]:
        """As admission webhooks see it: CreateOptions, UpdateOptions, PatchOptions."""
        options: dict[str, Any] = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
        if self.dry_run:
            options["dryRun"] = ["All"]
        if self.field_manager:
            options["fieldManager"] = self.field_manager
        if self.field_validation:
            options["fieldValidation"] = self.field_validation
        if self.force is not None:
            options["force"] = self.force
        return options


@dataclass(slots=True, kw_only=True)
class Call:
    """``warnings`` collects what becomes Warning headers; the rest does not change."""

    user: User
    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    options: Options = field(default_factory=Options)
    agent: str = ""  # of the client: names the field manager when no option does
    warnings: list[str] = field(default_factory=list)

    @property
    def manager(self) -> str:
        """The field manager: the option, else the client's name, as upstream has it."""
        return self.options.field_manager or self.agent.split("/", 1)[0] or "unknown"

    @property
    def key(self) -> str:
        return self.kind.key(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of one object as served, or of a Status."""

    data: bytes
    code: int = 200


def options_from(query: Mapping[str, str]) -> Options:
    """The write options of a query string; 400 for values that do not exist."""
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise bad_request(f'Invalid value: "{dry_run}": supported values: "All"')
    validation = query.get("fieldValidation", "")
    if validation and validation not in FIELD_VALIDATION:
        known = ", ".join(f'"{name}"' for name in FIELD_VALIDATION)
        raise bad_request(
            f'fieldValidation: Unsupported value: "{validation}": supported values: {known}'
        )
    manager = query.get("fieldManager", "")
    if len(manager) > 128:
        raise bad_request("fieldManager: Too long: may not be more than 128 bytes")
    force = query.get("force")
    return Options(
        dry_run=dry_run == "All",
        field_manager=manager,
        field_validation=validation,
        force=None if force is None else as_bool(force),
    )


def as_bool(value: str) -> bool:
    """A query parameter as the API reads it: everything but false and 0 means yes."""
    return value.lower() not in ("false", "0")
