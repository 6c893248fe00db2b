"""
Secrets of type ``kubernetes.io/service-account-token``: token and CA filled in, by request.

Nobody gets such a Secret without asking; one whose account is gone is deleted.
Source: the API concept "Service Accounts", "Manually create a long-lived API token".
"""

from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.meta import is_deleting, uid_of
from controlplane.objects.resources import SECRETS, SERVICE_ACCOUNTS
from controlplane.reconcile.base import Controller, Delete, Key, Update, Write

TYPE = "kubernetes.io/service-account-token"
ACCOUNT = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"

# (service account, secret) → a token that is bound to the secret and does not expire.
Mint = Callable[[Object, Object], str]


@dataclass(frozen=True, slots=True)
class _Source:
    mint: Mint
    certificate: str


def make(mint: Mint, certificate: str) -> Controller:
    """``certificate``: the server CA as PEM."""
    return Controller(
        name="tokens-controller",
        primary=SECRETS,
        reads=frozenset({SERVICE_ACCOUNTS}),
        writes=frozenset({SECRETS}),
        reconcile=partial(_reconcile, _Source(mint, certificate)),
        keys_for=_keys_for,
    )


def _reconcile(source: _Source, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    secret = reads.get(SECRETS, key.namespace, key.name)
    if secret is None or secret.get("type") != TYPE or is_deleting(secret):
        return
    annotations = secret["metadata"].get("annotations") or {}
    account = reads.get(SERVICE_ACCOUNTS, key.namespace, annotations.get(ACCOUNT, ""))
    expected = annotations.get(ACCOUNT_UID)
    if account is None or (expected and expected != uid_of(account)):
        yield Delete(SECRETS, secret)
        return
    data = dict(secret.get("data") or {})
    wanted = {"ca.crt": _encoded(source.certificate), "namespace": _encoded(key.namespace)}
    if expected and data.get("token") and wanted.items() <= data.items():
        return
    token = data.get("token") or _encoded(source.mint(account, secret))
    meta = secret["metadata"]
    annotations = {**annotations, ACCOUNT_UID: uid_of(account)}
    yield Update(
        SECRETS,
        {
            **secret,
            "metadata": {**meta, "annotations": annotations},
            "data": {**data, **wanted, "token": token},
        },
    )


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    """An account that comes or goes concerns its Secrets."""
    if change.load_old is not None and change.load_new is not None:
        return
    for secret in reads.list(SECRETS, change.namespace):
        annotations = secret["metadata"].get("annotations") or {}
        if secret.get("type") == TYPE and annotations.get(ACCOUNT) == change.name:
            yield Key(change.namespace, secret["metadata"]["name"])
