"""
What a controller is: what it reads, what it writes, and one pure function.

The loop reads, calls, and performs; a controller never sees the client. It is
told that something may have changed, not what: it compares what is with what
should be, so a missed or doubled call does no harm.

An object is written only by its owner. Most kinds have one writer; those with
several, such as Pod, are listed in ``shares``, and there the controller owner
reference decides.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """The object to reconcile; its namespace is "" where it has none."""

    namespace: str
    name: str
    # Set only in the keys of a controller of every kind, where the name alone does not tell.
    resource: Resource | None = None


@dataclass(frozen=True, slots=True)
class Create:
    """
    Add an object.

    What follows from the outcome is data too: ``on_success`` gets the object as
    created (a generated name is known only then), ``on_failure`` the error. Their
    writes are performed at once; a failure ends the pass after them.
    """

    resource: Resource
    body: Object
    on_success: "Callable[[Object], Iterable[Write]] | None" = None
    on_failure: "Callable[[StatusError], Iterable[Write]] | None" = None


@dataclass(frozen=True, slots=True)
class Update:
    """Replace an object; written only if ``resourceVersion`` in the body still matches."""

    resource: Resource
    body: Object


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Replace the status; written only if ``seen``'s resourceVersion still matches."""

    resource: Resource
    seen: Object
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Patch:
    """A JSON merge patch, for what must not depend on the resourceVersion."""

    resource: Resource
    namespace: str
    name: str
    body: Mapping[str, Any]
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Post:
    """Create on a subresource: binding, eviction."""

    resource: Resource
    namespace: str
    name: str
    subresource: str
    body: Object
    on_success: "Callable[[Object], Iterable[Write]] | None" = None
    on_failure: "Callable[[StatusError], Iterable[Write]] | None" = None


@dataclass(frozen=True, slots=True)
class Finalize:
    """Take the namespace's own finalizer (``spec.finalizers``) off: the finalize subresource."""

    seen: Object


@dataclass(frozen=True, slots=True)
class Delete:
    resource: Resource
    seen: Object  # deleted only if uid still matches: a namesake may have come since
    propagation: str = "Background"
    grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """An Event about an object; repeated ones are counted up by the loop."""

    about: Object
    type: str  # Normal, Warning
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Again:
    """Reconcile this key once more after a while, whether or not anything changes."""

    after: timedelta


Write = Create | Update | SetStatus | Patch | Post | Finalize | Delete | Record | Again


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """
    A controller as data about itself.

    ``reconcile`` gets the key (the object may be gone: look it up in Reads), the
    indexed reads and the time, in UTC with tzinfo. Its writes are performed in
    order (neighbouring creations and deletions side by side, in growing batches);
    the first that fails ends the pass, a conflict brings the key back at
    once, anything else with back-off.
    """

    name: str  # as upstream names it: replicaset-controller; also the field manager
    primary: Resource
    # Besides the primary; that too where a change to one object touches others of its kind.
    reads: frozenset[Resource]
    writes: frozenset[Resource]
    shares: frozenset[Resource] = frozenset()  # of ``writes``: those others write too
    reconcile: Callable[[Key, Reads, datetime], Iterable[Write]]
    # Which keys of the primary a change to what is in ``reads`` touches; a change to the
    # primary always queues its own key.
    keys_for: Callable[[Change, Reads], Iterable[Key]] = field(default=lambda _change, _reads: ())
    # Watches every kind that is served, custom ones included; ``primary`` is then only
    # one of them, changes to it are also asked about through ``keys_for``, and the
    # controller may delete or patch what others own (namespaces, garbage).
    every_kind: bool = False
