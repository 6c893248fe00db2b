"""
CertificateSigningRequest → its certificate; requests that are over are deleted.

Approving stays with people and their tools. Source: the API concept "Certificates
and Certificate Signing Requests".
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

from controlplane.client.base import Object, Reads
from controlplane.objects.meta import condition, is_deleting, is_true, parse_time, with_condition
from controlplane.objects.moment import left
from controlplane.objects.resources import CERTIFICATE_SIGNING_REQUESTS as REQUESTS
from controlplane.pki.signers import NotSignable, Signers, Wish
from controlplane.reconcile.base import Again, Controller, Delete, Key, SetStatus, Write

KEPT = timedelta(hours=1)  # once decided
KEPT_PENDING = timedelta(hours=24)


def make(signers: Signers) -> Controller:
    return Controller(
        name="csrsigning-controller",
        primary=REQUESTS,
        reads=frozenset(),
        writes=frozenset({REQUESTS}),
        reconcile=partial(_reconcile, signers),
    )


def _reconcile(signers: Signers, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    request = reads.get(REQUESTS, "", key.name)
    if request is None or is_deleting(request):
        return
    remaining = left(*_kept(request), now)
    if remaining <= timedelta(0):
        yield Delete(REQUESTS, request)
        return
    if _waits_for_us(request, signers):
        yield SetStatus(REQUESTS, request, _answer(signers, request, now))
    yield Again(remaining)


def _kept(request: Object) -> tuple[datetime, timedelta]:
    """Since when, and for how long, somebody may need the object."""
    meta = request["metadata"]
    for type_ in ("Approved", "Denied", "Failed"):
        found = condition(request, type_)
        if found is not None:
            since = found.get("lastUpdateTime") or meta["creationTimestamp"]
            return parse_time(since), KEPT
    return parse_time(meta["creationTimestamp"]), KEPT_PENDING


def _waits_for_us(request: Object, signers: Signers) -> bool:
    status = request.get("status") or {}
    return (
        request["spec"]["signerName"] in signers
        and is_true(request, "Approved")
        and condition(request, "Denied") is None
        and condition(request, "Failed") is None
        and not status.get("certificate")
    )


def _answer(signers: Signers, request: Object, now: datetime) -> Object:
    spec, status = request["spec"], dict(request.get("status") or {})
    seconds = spec.get("expirationSeconds")
    wish = Wish(
        request=b64decode(spec["request"]),
        usages=tuple(spec.get("usages") or ()),
        lifetime=None if seconds is None else timedelta(seconds=seconds),
        requestor=spec.get("username", ""),
    )
    try:
        certificate = signers.sign(spec["signerName"], wish, now)
    except NotSignable as err:
        failed = {
            "type": "Failed",
            "status": "True",
            "reason": "SignerValidationFailure",
            "message": str(err),
        }
        return {**status, "conditions": with_condition(status.get("conditions"), failed, now)}
    return {**status, "certificate": b64encode(certificate).decode()}
