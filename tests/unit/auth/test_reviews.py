"""Reviews and token requests, as clients see them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.api.authn import JoinTokenAuthenticator
from controlplane.api.authorize import Chain, Masters
from controlplane.api.base import User
from controlplane.api.bootstrap_policy import policy
from controlplane.api.rbac import Rbac
from controlplane.api.reviews import StandardReviews
from controlplane.api.service_accounts import ServiceAccountAuthenticator
from controlplane.api.tokens import ServiceAccountTokens
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kind
from controlplane.objects.resources import NODES, PODS, SERVICE_ACCOUNTS
from controlplane.pki.certificates import key_pem, new_key
from tests.unit.auth.fake_objects import Objects

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
ISSUER = "https://kubernetes.default.svc.cluster.local"
JANE = User(name="jane", groups=("system:authenticated",), extra={"a": ("b",)})
TOKENS = ServiceAccountTokens(
    key_pem(new_key()), issuer=ISSUER, audiences=(ISSUER,), jwks_uri="https://x/jwks"
)


def cluster() -> Objects:
    objects = Objects()
    for resource, body in (*policy()[0], *policy()[1]):
        objects.put(resource, body)
    objects.put(SERVICE_ACCOUNTS, {"metadata": {"namespace": "ns", "name": "bot"}})
    spec = {"nodeName": "n1", "serviceAccountName": "bot"}
    objects.put(PODS, {"metadata": {"namespace": "ns", "name": "web"}, "spec": spec})
    objects.put(NODES, {"metadata": {"name": "n1"}})
    return objects


def reviews(objects: Objects | None = None) -> StandardReviews:
    objects = objects or cluster()

    def clock() -> datetime:
        return NOW

    return StandardReviews(
        authorizer=Chain([Masters(), Rbac(objects)]),
        service_accounts=ServiceAccountAuthenticator(TOKENS, objects, clock),
        bearers=[JoinTokenAuthenticator("pw")],
        tokens=TOKENS,
        reads=objects,
        clock=clock,
    )


def kind(name: str, group: str = "authorization.k8s.io") -> Kind:
    return Kind(
        group=group,
        version="v1",
        kind=name,
        plural=f"{name.lower()}s",
        singular=name.lower(),
        namespaced=name.startswith("Local"),
    )


def ask(name: str, spec: dict[str, Any], *, user: User = JANE, namespace: str = "") -> Any:
    made = reviews().create(kind(name), namespace=namespace, body={"spec": spec}, user=user)
    return asyncio.run(made)["status"]


def request_token(spec: dict[str, Any], objects: Objects | None = None, **metadata: str) -> Any:
    body = {"metadata": metadata, "spec": spec}
    made = reviews(objects).issue_token(namespace="ns", service_account="bot", body=body, user=JANE)
    return asyncio.run(made)


POD_REFERENCE = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "uid-web"}


def test_a_token_request_gives_a_token_that_reviews_to_its_account() -> None:
    made = request_token({"boundObjectRef": POD_REFERENCE})
    assert made["status"]["expirationTimestamp"] == "2027-03-01T13:00:00Z"
    assert made["spec"]["audiences"] == [ISSUER]
    status = ask("TokenReview", {"token": made["status"]["token"]})
    assert status["authenticated"] is True
    assert status["audiences"] == [ISSUER]
    user = status["user"]
    assert user["username"] == "system:serviceaccount:ns:bot"
    assert user["groups"][-1] == "system:authenticated"
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["web"]
    assert user["extra"]["authentication.kubernetes.io/node-uid"] == ["uid-n1"]


def test_a_token_for_another_audience_reviews_for_that_audience_only() -> None:
    token = request_token({"audiences": ["vault"]})["status"]["token"]
    status = ask("TokenReview", {"token": token, "audiences": ["vault", "other"]})
    assert (status["authenticated"], status["audiences"]) == (True, ["vault"])
    status = ask("TokenReview", {"token": token})
    assert "authenticated" not in status
    assert status["error"].startswith("[invalid bearer token, token audiences")


def test_the_token_of_a_pod_lives_a_year_but_says_an_hour() -> None:
    made = request_token({"boundObjectRef": POD_REFERENCE, "expirationSeconds": 3607})
    assert made["status"]["expirationTimestamp"] == "2027-03-01T13:00:07Z"
    claims = TOKENS.read(made["status"]["token"], NOW + timedelta(days=300))
    assert claims is not None
    assert claims.expires == int((NOW + timedelta(days=365)).timestamp())


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        ({"expirationSeconds": 599}, 422, "less than 10 minutes"),
        ({"expirationSeconds": (1 << 32) + 1}, 422, "larger than 2^32"),
        ({"boundObjectRef": {**POD_REFERENCE, "name": "no"}}, 404, 'pods "no" not found'),
        ({"boundObjectRef": {**POD_REFERENCE, "uid": "old"}}, 409, "does not match the UID in rec"),
        (
            {"boundObjectRef": {"apiVersion": "v1", "kind": "Service", "name": "x"}},
            400,
            "cannot bind token to object of type /v1, Kind=Service",
        ),
    ],
)
def test_a_token_request_that_cannot_be_met_is_refused(
    spec: dict[str, Any], code: int, text: str
) -> None:
    with pytest.raises(StatusError) as caught:
        request_token(spec)
    assert caught.value.code == code
    assert text in caught.value.message


def test_a_token_binds_only_to_a_pod_of_its_account() -> None:
    objects = cluster()
    spec = {"serviceAccountName": "other"}
    objects.put(PODS, {"metadata": {"namespace": "ns", "name": "web"}, "spec": spec})
    with pytest.raises(StatusError, match="different serviceaccount name"):
        request_token({"boundObjectRef": POD_REFERENCE}, objects)


def test_a_token_request_must_mean_this_account() -> None:
    with pytest.raises(StatusError, match="UID in the token request"):
        request_token({}, uid="other")
    with pytest.raises(StatusError, match="must match the service account name"):
        request_token({}, name="other")


def test_other_bearer_tokens_review_too() -> None:
    status = ask("TokenReview", {"token": "server:pw"})
    assert status["user"]["username"] == "system:pinnace-server-token"
    assert ask("TokenReview", {"token": "nonsense"}) == {
        "user": {},
        "error": "invalid bearer token",
    }


DISCOVERY = {"nonResourceAttributes": {"verb": "get", "path": "/apis"}}


def test_says_what_one_may_oneself() -> None:
    status = ask("SelfSubjectAccessReview", DISCOVERY)
    assert status["allowed"] is True
    assert "system:discovery" in status["reason"]
    pods = {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "ns"}}
    assert ask("SelfSubjectAccessReview", pods) == {"allowed": False}


def test_says_what_others_may() -> None:
    spec = {**DISCOVERY, "user": "x", "groups": ["system:masters"]}
    assert ask("SubjectAccessReview", spec)["allowed"] is True
    assert ask("SubjectAccessReview", {**DISCOVERY, "user": "x"}) == {"allowed": False}


@pytest.mark.parametrize(
    ("name", "spec", "text"),
    [
        ("SelfSubjectAccessReview", {}, "exactly one of nonResourceAttributes"),
        ("SubjectAccessReview", DISCOVERY, "at least one of user or group"),
        ("LocalSubjectAccessReview", {**DISCOVERY, "user": "x"}, "disallowed on this kind"),
        (
            "LocalSubjectAccessReview",
            {"user": "x", "resourceAttributes": {"namespace": "other"}},
            "must match metadata.namespace",
        ),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    name: str, spec: dict[str, Any], text: str
) -> None:
    with pytest.raises(StatusError) as caught:
        ask(name, spec, namespace="ns")
    assert caught.value.code == 422
    assert text in caught.value.message


def test_lists_ones_own_rules() -> None:
    status = ask("SelfSubjectRulesReview", {"namespace": "ns"})
    assert status["incomplete"] is False
    assert {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"]} | {
        "resources": ["selfsubjectreviews"]
    } in status["resourceRules"]
    assert any("/version" in rule["nonResourceURLs"] for rule in status["nonResourceRules"])


def test_says_who_one_is() -> None:
    status = ask("SelfSubjectReview", {})
    assert status["userInfo"] == {
        "username": "jane",
        "groups": ["system:authenticated"],
        "extra": {"a": ["b"]},
    }
