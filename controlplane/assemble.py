"""
The parts of the control plane, made from the configuration and passed by argument.

:mod:`controlplane.run` says in which order they start; here is what each is made of.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from controlplane.api.admission.registry import default_admissions
from controlplane.api.admission.resource_quota import ResourceQuota
from controlplane.api.admission.unsupported import Unsupported
from controlplane.api.app import Around
from controlplane.api.authn import (
    BootstrapTokenAuthenticator,
    CertificateAuthenticator,
    JoinTokenAuthenticator,
    UnionAuthenticator,
)
from controlplane.api.authorize import Chain, Masters
from controlplane.api.base import MASTERS_GROUP, User
from controlplane.api.bootstrap_policy import node_rules
from controlplane.api.cache import ObjectCache
from controlplane.api.call import Network, Parts
from controlplane.api.customresources.admit import Definitions, Values
from controlplane.api.local import LocalClient
from controlplane.api.metrics_api.serve import MetricsApi
from controlplane.api.node_authorizer import NodeAuthorizer
from controlplane.api.policies.admission import MutatingPolicies, ValidatingPolicies
from controlplane.api.present import presenter
from controlplane.api.rbac import Rbac
from controlplane.api.reviews import StandardReviews
from controlplane.api.server import client_tls, server_tls
from controlplane.api.service_accounts import ServiceAccountAuthenticator
from controlplane.api.static import StaticFiles
from controlplane.api.tokens import Reference, ServiceAccountTokens
from controlplane.api.webhooks.admission import MutatingWebhooks, ValidatingWebhooks
from controlplane.api.webhooks.caller import Caller
from controlplane.api.webhooks.conversion import WebhookConversion
from controlplane.client.base import Client, Object
from controlplane.client.clock import WallClock
from controlplane.config import Config
from controlplane.controllers import (
    certificates,
    clusterrole,
    cronjob,
    customresources,
    disruption,
    garbage,
    kubernetes_service,
    namespace,
    node_hosts,
    node_ipam,
    node_lifecycle,
    node_role,
    pod_gc,
    protection,
    replicaset,
    resource_quota,
    root_ca,
    serviceaccount,
    taint_eviction,
    token_secret,
)
from controlplane.controllers.daemonset import controller as daemonset
from controlplane.controllers.deployment.controller import DEPLOYMENT
from controlplane.controllers.endpoints.legacy import ENDPOINTS_CONTROLLER
from controlplane.controllers.endpoints.mirror import MIRROR
from controlplane.controllers.endpoints.slices import ENDPOINTSLICE
from controlplane.controllers.job.controller import JOB
from controlplane.controllers.statefulset.controller import STATEFULSET
from controlplane.controllers.volumes.binder import CLAIM_BINDER
from controlplane.controllers.volumes.ephemeral import EPHEMERAL
from controlplane.controllers.volumes.expansion import EXPANSION
from controlplane.controllers.volumes.phases import VOLUME_PHASES
from controlplane.deploy import folder as deploy
from controlplane.deploy.deployer import Deployer, Packaged
from controlplane.objects.facts import builtin_kinds, load_schemas
from controlplane.objects.kinds import Kinds
from controlplane.objects.schema import Schemas
from controlplane.pki.ensure import Pki, load_authority
from controlplane.pki.signers import Signers
from controlplane.reconcile.base import Controller
from controlplane.reconcile.clock import Clock
from controlplane.store.base import Store

# What runs in this process may do anything: it is the control plane.
ITSELF = User(name="system:kube-controller-manager", groups=(MASTERS_GROUP,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What everything else stands on; custom resources extend kinds and schemas later."""

    config: Config
    pki: Pki
    store: Store
    cache: ObjectCache
    kinds: Kinds
    schemas: Schemas
    tokens: ServiceAccountTokens
    clock: WallClock

    @property
    def now(self) -> Callable[[], datetime]:
        return self.clock.now


def foundation(
    config: Config, pki: Pki, store: Store, clock: WallClock | None = None
) -> Foundation:
    kinds = Kinds(builtin_kinds())
    issuer = f"https://kubernetes.default.svc.{config.cluster_domain}"
    return Foundation(
        config=config,
        pki=pki,
        store=store,
        cache=ObjectCache(kinds, present=presenter(kinds)),
        kinds=kinds,
        schemas=load_schemas(),
        tokens=ServiceAccountTokens(
            pki.service_key_pem,
            issuer=issuer,
            audiences=(issuer, "pinnace"),
            jwks_uri=f"https://{config.advertise_address}:{config.https_port}/openid/v1/jwks",
        ),
        clock=WallClock() if clock is None else clock,
    )


def parts(base: Foundation) -> Parts:
    """Of the API server."""

    def itself() -> Client:
        return LocalClient(made, ITSELF)

    def whole() -> Parts:
        return made

    made = _with_users_admission(_parts(base), whole)
    # Last: it counts what is going to be stored.
    made = replace(made, admissions=(*made.admissions, ResourceQuota(itself, base.now)))
    if "metrics-server" not in base.config.disable:
        made = replace(made, aggregators=(*made.aggregators, MetricsApi(whole)))
    return made


def _with_users_admission(made: Parts, whole: Callable[[], Parts]) -> Parts:
    """``whole``: the parts once they are complete."""
    caller = Caller(whole)
    asked = (
        MutatingPolicies(whole),
        MutatingWebhooks(whole, caller),
        ValidatingPolicies(whole),
        ValidatingWebhooks(whole, caller),
    )
    return replace(
        made,
        admissions=(*made.admissions, *asked),
        conversion=WebhookConversion(whole, caller),
        closing=(*made.closing, caller.close),
    )


def _parts(base: Foundation) -> Parts:
    config, pki, cache, now = base.config, base.pki, base.cache, base.now
    accounts = ServiceAccountAuthenticator(base.tokens, cache, now)
    bearers = (BootstrapTokenAuthenticator(cache, now), JoinTokenAuthenticator(pki.token.password))
    certificates = CertificateAuthenticator(
        client_ca=pki.client_ca_pem,
        proxy_ca=pki.request_header_ca_pem,
        proxy_names=frozenset({"system:auth-proxy"}),
        clock=now,
    )
    rbac = Rbac(cache)
    authorizer = Chain((Masters(), NodeAuthorizer(cache, node_rules()), rbac))
    kubelet_certificate, kubelet_key = pki.kubelet_client
    return Parts(
        kinds=base.kinds,
        schemas=base.schemas,
        store=base.store,
        cache=cache,
        clock=now,
        authenticators=(UnionAuthenticator((certificates, accounts, *bearers)),),
        authorizer=authorizer,
        admissions=(
            *default_admissions(
                feed=cache, authorizer=authorizer, rbac=rbac, randomness=os.urandom
            ),
            Definitions(),
            Values(base.schemas),
            Unsupported(),
        ),
        reviews=StandardReviews(
            authorizer=authorizer,
            service_accounts=accounts,
            bearers=bearers,
            tokens=base.tokens,
            reads=cache,
            clock=now,
        ),
        network=Network(
            service_cidr=config.service_cidr,
            node_ports=config.node_port_range,
            reserved=frozenset({str(config.service_cidr[1]), str(config.cluster_dns)}),
        ),
        kubelet_tls=client_tls(kubelet_certificate, kubelet_key, pki.server_ca),
    )


def listener_tls(pki: Pki) -> ssl.SSLContext:
    certificate, key = pki.serving
    context = server_tls(certificate, key, pki.client_ca)
    # Front proxies too may shake hands; which CA signed decides what they may say.
    context.load_verify_locations(pki.request_header_ca)
    return context


def around(config: Config) -> Around:
    """What surrounds the API of the API server."""
    static = StaticFiles((deploy.STATIC, config.server_dir / "static"))
    return Around(
        address=f"{config.advertise_address}:{config.https_port}", extra={"static": static}
    )


def deployer(base: Foundation, client: Client, clock: Clock) -> Deployer:
    """Of the manifests folder."""
    config = base.config
    return Deployer(
        client=client,
        kinds=base.kinds,
        clock=clock,
        manifests=config.server_dir / "manifests",
        node_name=config.node_name,
        disable=_left_out(config),
        packaged=Packaged(source=deploy.PACKAGED, variables=_variables(config)),
    )


def _left_out(config: Config) -> frozenset[str]:
    """AddOns by name: what was disabled, and of cluster DNS the provider that was not chosen."""
    without_dns = {"cluster-dns"} if "coredns" in config.disable else set()
    without_pods = {"coredns"} if config.cluster_dns_provider != "coredns" else set()
    return config.disable | without_dns | without_pods


def _variables(config: Config) -> Mapping[str, str]:
    """Of packaged manifests, by K3s's names; %{KUBERNETES_API}% is left to the Helm operator."""
    registry = config.system_default_registry
    return {
        "CLUSTER_DNS": str(config.cluster_dns),
        "CLUSTER_DNS_LIST": f"[{config.cluster_dns}]",
        "CLUSTER_DNS_IPFAMILYPOLICY": "SingleStack",
        "CLUSTER_DOMAIN": config.cluster_domain,
        "DEFAULT_LOCAL_STORAGE_PATH": config.local_storage_path or str(config.data_dir / "storage"),
        "SYSTEM_DEFAULT_REGISTRY": f"{registry}/" if registry else "",
        "SYSTEM_DEFAULT_REGISTRY_RAW": registry,
    }


def controllers(base: Foundation) -> tuple[Controller, ...]:
    config, certificate = base.config, base.pki.server_ca_pem.decode()

    def mint(account: Object, secret: Object) -> str:
        meta = account["metadata"]
        return base.tokens.sign_legacy(
            namespace=meta["namespace"],
            service_account=Reference(name=meta["name"], uid=meta["uid"]),
            secret=secret["metadata"]["name"],
        )

    tls = base.pki.tls_dir
    signers = Signers(
        client=load_authority(tls, "client-ca"), serving=load_authority(tls, "server-ca")
    )
    return (
        namespace.make(base.kinds),
        garbage.make(base.kinds),
        serviceaccount.SERVICEACCOUNT,
        root_ca.make(certificate),
        *((node_hosts.NODE_HOSTS,) if config.cluster_dns_provider == "coredns" else ()),
        token_secret.make(mint, certificate),
        certificates.make(signers),
        clusterrole.CLUSTERROLE,
        customresources.CONTROLLER,
        node_ipam.make(config.cluster_cidr),
        node_role.make(config.node_name),
        node_lifecycle.make(),
        taint_eviction.make(),
        pod_gc.make(),
        *protection.PROTECTION,
        CLAIM_BINDER,
        VOLUME_PHASES,
        EPHEMERAL,
        EXPANSION,
        disruption.DISRUPTION,
        resource_quota.make(base.kinds),
        kubernetes_service.make(
            str(config.service_cidr[1]), config.advertise_address, config.https_port
        ),
        DEPLOYMENT,
        replicaset.REPLICASET,
        replicaset.REPLICATIONCONTROLLER,
        daemonset.make(),
        STATEFULSET,
        JOB,
        cronjob.CRONJOB,
        ENDPOINTSLICE,
        ENDPOINTS_CONTROLLER,
        MIRROR,
    )
