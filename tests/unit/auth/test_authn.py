"""Who a request comes from, for each kind of proof."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from controlplane.api.authn import (
    BootstrapTokenAuthenticator,
    CertificateAuthenticator,
    JoinTokenAuthenticator,
    UnionAuthenticator,
)
from controlplane.api.base import Authenticator, Credentials, User
from controlplane.api.service_accounts import ServiceAccountAuthenticator
from controlplane.api.tokens import Claims, Reference, ServiceAccountTokens
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS
from controlplane.pki.certificates import (
    Authority,
    Leaf,
    certificate_pem,
    issue,
    key_pem,
    new_key,
    self_signed,
)
from tests.unit.auth.fake_objects import Objects

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
ISSUER = "https://kubernetes.default.svc.cluster.local"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def authority(name: str) -> Authority:
    key = new_key()
    certificate = self_signed(name, key, NOW)
    return Authority(key=key, chain=(certificate,), pem=certificate_pem([certificate]))


CLIENT_CA, PROXY_CA, OTHER_CA = authority("client"), authority("proxy"), authority("other")


def peer(by: Authority, name: str, *groups: str, server: bool = False) -> bytes:
    leaf = Leaf(common_name=name, organizations=groups, server=server)
    return issue(by, leaf, new_key().public_key(), NOW).public_bytes(Encoding.DER)


def certificates(clock: Clock) -> CertificateAuthenticator:
    return CertificateAuthenticator(
        client_ca=CLIENT_CA.pem,
        proxy_ca=PROXY_CA.pem,
        proxy_names=frozenset({"system:auth-proxy"}),
        clock=clock,
    )


def ask(authenticators: Sequence[Authenticator], **credentials: Any) -> User:
    union = UnionAuthenticator(authenticators)
    return asyncio.run(union.authenticate(Credentials(**credentials)))


def refused(authenticators: Sequence[Authenticator], **credentials: Any) -> None:
    with pytest.raises(StatusError) as caught:
        ask(authenticators, **credentials)
    assert caught.value.code == 401


def test_without_any_proof_one_is_anonymous() -> None:
    user = ask([certificates(Clock())])
    assert user == User(name="system:anonymous", groups=("system:unauthenticated",))


def test_a_certificate_names_user_and_groups() -> None:
    user = ask([certificates(Clock())], peer_certificate=peer(CLIENT_CA, "jane", "a", "b"))
    assert (user.name, user.groups) == ("jane", ("a", "b", "system:authenticated"))
    (fingerprint,) = user.extra["authentication.kubernetes.io/credential-id"]
    assert fingerprint.startswith("X509SHA256=")


@pytest.mark.parametrize(
    "der",
    [
        peer(OTHER_CA, "jane"),
        peer(CLIENT_CA, "jane", server=True),
        peer(CLIENT_CA, "jane")[:-9],
    ],
    ids=["other-ca", "for-servers", "damaged"],
)
def test_a_certificate_that_does_not_hold_is_refused(der: bytes) -> None:
    refused([certificates(Clock())], peer_certificate=der)


def test_a_certificate_ends_while_its_connection_lives() -> None:
    clock, der = Clock(), peer(CLIENT_CA, "jane")
    authenticators = [certificates(clock)]
    assert ask(authenticators, peer_certificate=der).name == "jane"
    clock.now = NOW + timedelta(days=366)
    refused(authenticators, peer_certificate=der)


PROXIED = {
    "x-remote-user": "jane",
    "x-remote-group": "devs\nops",
    "x-remote-extra-example.com%2fscope": "a",
}


def test_a_front_proxy_speaks_for_others() -> None:
    der = peer(PROXY_CA, "system:auth-proxy")
    user = ask([certificates(Clock())], peer_certificate=der, headers=PROXIED)
    assert user == User(
        name="jane",
        groups=("devs", "ops", "system:authenticated"),
        extra={"example.com/scope": ("a",)},
    )


def test_only_the_front_proxy_speaks_for_others() -> None:
    authenticators = [certificates(Clock())]
    user = ask(authenticators, peer_certificate=peer(CLIENT_CA, "joe"), headers=PROXIED)
    assert user.name == "joe"
    refused(authenticators, peer_certificate=peer(PROXY_CA, "mallory"), headers=PROXIED)
    assert ask(authenticators, headers=PROXIED).name == "system:anonymous"


@pytest.mark.parametrize(
    "credentials",
    [
        {"headers": {"authorization": "Basic " + base64.b64encode(b"server:pw").decode()}},
        {"bearer_token": "server:pw"},
        {"bearer_token": f"K10{'0' * 64}::server:pw"},
    ],
)
def test_the_join_token_names_whoever_joins(credentials: dict[str, Any]) -> None:
    user = ask([JoinTokenAuthenticator("pw")], **credentials)
    assert "pinnace:server" in user.groups
    assert "system:masters" not in user.groups
    refused([JoinTokenAuthenticator("other")], **credentials)


def bootstrap_secret(**data: str) -> dict[str, Any]:
    fields = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        "expiration": "2027-03-02T00:00:00Z",
        "auth-extra-groups": "system:bootstrappers:nodes",
    } | data
    return {
        "metadata": {"namespace": "kube-system", "name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token",
        "data": {k: base64.b64encode(v.encode()).decode() for k, v in fields.items()},
    }


def test_a_bootstrap_token_names_its_id_and_groups() -> None:
    objects = Objects()
    objects.put(SECRETS, bootstrap_secret())
    user = ask(
        [BootstrapTokenAuthenticator(objects, Clock())], bearer_token="abcdef.0123456789abcdef"
    )
    assert user.name == "system:bootstrap:abcdef"
    assert user.groups[:2] == ("system:bootstrappers", "system:bootstrappers:nodes")


@pytest.mark.parametrize(
    "data",
    [
        {"token-secret": "0000000000000000"},
        {"expiration": "2027-03-01T00:00:00Z"},
        {"expiration": "soon"},
        {"usage-bootstrap-authentication": "false"},
        {"auth-extra-groups": "system:masters"},
    ],
)
def test_a_bootstrap_token_that_does_not_hold_is_refused(data: dict[str, str]) -> None:
    objects = Objects()
    objects.put(SECRETS, bootstrap_secret(**data))
    authenticators = [BootstrapTokenAuthenticator(objects, Clock())]
    refused(authenticators, bearer_token="abcdef.0123456789abcdef")


TOKENS = ServiceAccountTokens(
    key_pem(new_key()), issuer=ISSUER, audiences=(ISSUER,), jwks_uri="https://x/jwks"
)
BOUND = Claims(
    namespace="ns",
    service_account=Reference(name="bot", uid="uid-bot"),
    pod=Reference(name="web-0", uid="uid-web-0"),
    node=Reference(name="edge-1", uid="uid-edge-1"),
    audiences=(ISSUER,),
    jti="7",
)


def cluster() -> Objects:
    objects = Objects()
    objects.put(SERVICE_ACCOUNTS, {"metadata": {"namespace": "ns", "name": "bot"}})
    objects.put(PODS, {"metadata": {"namespace": "ns", "name": "web-0"}})
    objects.put(NODES, {"metadata": {"name": "edge-1"}})
    return objects


def bound_token(claims: Claims = BOUND) -> str:
    return TOKENS.sign(claims, now=NOW, lifetime=timedelta(hours=1))


def test_a_service_account_token_names_account_pod_and_node() -> None:
    authenticators = [ServiceAccountAuthenticator(TOKENS, cluster(), Clock())]
    user = ask(authenticators, bearer_token=bound_token())
    assert user == User(
        name="system:serviceaccount:ns:bot",
        uid="uid-bot",
        groups=("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"),
        extra={
            "authentication.kubernetes.io/pod-name": ("web-0",),
            "authentication.kubernetes.io/pod-uid": ("uid-web-0",),
            "authentication.kubernetes.io/node-name": ("edge-1",),
            "authentication.kubernetes.io/node-uid": ("uid-edge-1",),
            "authentication.kubernetes.io/credential-id": ("JTI=7",),
        },
    )


def test_a_token_dies_with_what_it_is_bound_to() -> None:
    for resource, name in ((PODS, "web-0"), (SERVICE_ACCOUNTS, "bot")):
        objects = cluster()
        authenticators = [ServiceAccountAuthenticator(TOKENS, objects, Clock())]
        assert ask(authenticators, bearer_token=bound_token()).uid == "uid-bot"
        objects.remove(resource, "ns", name)
        refused(authenticators, bearer_token=bound_token())
        objects.put(resource, {"metadata": {"namespace": "ns", "name": name, "uid": "new"}})
        refused(authenticators, bearer_token=bound_token())


def test_a_token_outlives_the_mark_of_deletion_by_a_minute() -> None:
    objects, clock = cluster(), Clock()
    metadata = {"namespace": "ns", "name": "web-0", "deletionTimestamp": "2027-03-01T12:00:00Z"}
    objects.put(PODS, {"metadata": metadata})
    authenticators = [ServiceAccountAuthenticator(TOKENS, objects, clock)]
    assert ask(authenticators, bearer_token=bound_token()).uid == "uid-bot"
    clock.now = NOW + timedelta(seconds=61)
    refused(authenticators, bearer_token=bound_token())


def test_a_token_for_another_audience_is_refused() -> None:
    authenticators = [ServiceAccountAuthenticator(TOKENS, cluster(), Clock())]
    refused(authenticators, bearer_token=bound_token(replace(BOUND, audiences=("vault",))))


def test_a_token_bound_to_a_node_dies_with_it() -> None:
    objects = cluster()
    authenticators = [ServiceAccountAuthenticator(TOKENS, objects, Clock())]
    token = bound_token(replace(BOUND, pod=None))
    assert ask(authenticators, bearer_token=token).uid == "uid-bot"
    objects.remove(NODES, "", "edge-1")
    refused(authenticators, bearer_token=token)


def test_a_legacy_token_must_match_its_secret() -> None:
    objects = cluster()
    account = Reference(name="bot", uid="uid-bot")
    token = TOKENS.sign_legacy(namespace="ns", service_account=account, secret="bot-token")
    data = {"token": base64.b64encode(token.encode()).decode()}
    authenticators = [ServiceAccountAuthenticator(TOKENS, objects, Clock())]
    refused(authenticators, bearer_token=token)
    objects.put(SECRETS, {"metadata": {"namespace": "ns", "name": "bot-token"}, "data": data})
    assert ask(authenticators, bearer_token=token).name == "system:serviceaccount:ns:bot"
    objects.put(SECRETS, {"metadata": {"namespace": "ns", "name": "bot-token"}, "data": {}})
    refused(authenticators, bearer_token=token)


def test_an_unknown_token_is_refused_though_none_would_do() -> None:
    refused([JoinTokenAuthenticator("pw"), certificates(Clock())], bearer_token="who-knows")


def test_a_right_proof_makes_a_wrong_one_moot() -> None:
    authenticators: list[Authenticator] = [certificates(Clock()), JoinTokenAuthenticator("pw")]
    user = ask(authenticators, peer_certificate=peer(OTHER_CA, "x"), bearer_token="server:pw")
    assert user.name == "system:pinnace-server-token"
