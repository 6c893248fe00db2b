"""
ServiceAccount: every pod has an account, and its token mounted unless somebody declines it.

The default account of a new namespace is made by a controller a moment after
the namespace; a pod that comes first waits for it, for as long as a client of
upstream would see retries.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from controlplane.api.admission.plugin import MIRROR_ANNOTATION, Plugin, refused, spec_of
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.api.node_authorizer import pod_references
from controlplane.client.base import Change, Feed, Object
from controlplane.objects import meta
from controlplane.objects.resources import SERVICE_ACCOUNTS

DEFAULT = "default"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_VOLUME_PREFIX = "kube-api-access-"
_TOKEN_SECONDS = 3607
_WAIT_SECONDS = 1.5
_ENFORCE = "kubernetes.io/enforce-mountable-secrets"


class ServiceAccount(Plugin):
    name = "ServiceAccount"

    def __init__(self, feed: Feed, randomness: Callable[[int], bytes]) -> None:
        """``randomness``: that many random bytes, such as ``os.urandom``."""
        self._feed = feed
        self._randomness = randomness

    async def mutate(self, request: AdmissionRequest) -> None:
        pod = request.object
        if not _is_about_pods(request) or pod is None or request.operation is not Operation.CREATE:
            return
        if _is_mirror(pod):
            return
        spec = spec_of(pod)
        # The older name of the field is still written and read by clients.
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(request, name)
        if _automounts(account, spec):
            self._mount(spec)
        if not spec.get("imagePullSecrets"):
            secrets = [{"name": s.get("name")} for s in account.get("imagePullSecrets") or ()]
            if secrets:
                spec["imagePullSecrets"] = secrets

    async def validate(self, request: AdmissionRequest) -> None:
        pod = request.object
        if not _is_about_pods(request) or pod is None:
            return
        ephemeral = request.subresource == "ephemeralcontainers"
        if request.operation is not Operation.CREATE and not ephemeral:
            return
        if _is_mirror(pod):
            if not ephemeral:
                _check_mirror(request, pod)
            return
        spec = spec_of(pod)
        name = spec.get("serviceAccountName") or ""
        if not name:
            pod_name = f"{request.namespace}/{request.name}"
            raise refused(request, f"no service account specified for pod {pod_name}")
        account = await self._account(request, name)
        if meta.annotations(account).get(_ENFORCE, "").lower() in {"true", "t", "1"}:
            _check_secrets(request, account, spec, ephemeral=ephemeral)

    async def _account(self, request: AdmissionRequest, name: str) -> Object:
        namespace = request.namespace
        account = request.reads.get(SERVICE_ACCOUNTS, namespace, name)
        if account is None and name == DEFAULT:
            account = await self._wait_for(namespace, name)
        if account is None:
            raise refused(
                request,
                f"error looking up service account {namespace}/{name}: "
                f'serviceaccount "{name}" not found',
            )
        return account

    async def _wait_for(self, namespace: str, name: str) -> Object | None:
        appeared: asyncio.Future[Object] = asyncio.get_running_loop().create_future()

        def deliver(change: Change) -> None:
            if (change.namespace, change.name) != (namespace, name) or appeared.done():
                return
            if change.new is not None:
                appeared.set_result(change.new)

        unsubscribe = self._feed.subscribe([SERVICE_ACCOUNTS], deliver)
        try:
            return await asyncio.wait_for(appeared, _WAIT_SECONDS)
        except TimeoutError:
            return None
        finally:
            unsubscribe()

    def _mount(self, spec: dict[str, Any]) -> None:
        volumes = spec.get("volumes") or []
        present = next((v["name"] for v in volumes if _is_token_volume(v)), "")
        name = present or _VOLUME_PREFIX + meta.name_suffix(self._randomness(5))
        mounted = False
        for kind in ("initContainers", "containers"):
            for container in spec.get(kind) or ():
                mounts = container.get("volumeMounts") or []
                if any(mount.get("mountPath") == MOUNT_PATH for mount in mounts):
                    continue
                mount = {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}
                container["volumeMounts"] = [*mounts, mount]
                mounted = True
        if mounted and not present:
            spec["volumes"] = [*volumes, {"name": name, "projected": token_volume()}]


def token_volume() -> dict[str, Any]:
    """Token, CA and namespace in one projected volume; KEP-1205."""
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
            {
                "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
        ],
        "defaultMode": 0o644,
    }


def _is_about_pods(request: AdmissionRequest) -> bool:
    return request.kind.group_resource == "pods" and request.subresource in {
        "",
        "ephemeralcontainers",
    }


def _is_mirror(pod: Object) -> bool:
    return MIRROR_ANNOTATION in meta.annotations(pod)


def _is_token_volume(volume: Mapping[str, Any]) -> bool:
    return str(volume.get("name", "")).startswith(_VOLUME_PREFIX)


def _automounts(account: Object, spec: Mapping[str, Any]) -> bool:
    for holder in (spec, account):
        wanted = holder.get("automountServiceAccountToken")
        if wanted is not None:
            return bool(wanted)
    return True


def _check_mirror(request: AdmissionRequest, pod: Object) -> None:
    spec = pod.get("spec") or {}
    if spec.get("serviceAccountName"):
        raise refused(request, "a mirror pod may not reference service accounts")
    if any(resource == "secrets" for resource, _ in pod_references(pod)):
        raise refused(request, "a mirror pod may not reference secrets")
    for volume in spec.get("volumes") or ():
        sources = (volume.get("projected") or {}).get("sources") or ()
        if any("serviceAccountToken" in source for source in sources):
            raise refused(
                request, "a mirror pod may not use ServiceAccountToken volume projections"
            )


def _check_secrets(
    request: AdmissionRequest, account: Object, spec: Mapping[str, Any], *, ephemeral: bool
) -> None:
    """Only what the account lists, for accounts that ask for it."""
    name = meta.name(account)
    mountable = {secret.get("name") for secret in account.get("secrets") or ()}
    uses = _container_secrets(spec, ("ephemeralContainers",) if ephemeral else _USUAL)
    if not ephemeral:
        uses = [*_volume_secrets(spec), *uses]
    for what, secret in uses:
        if secret not in mountable:
            raise refused(
                request,
                f'{what}secret.secretName="{secret}" is not allowed because service account '
                f"{name} does not reference that secret",
            )
    pullable = {secret.get("name") for secret in account.get("imagePullSecrets") or ()}
    for index, secret in enumerate(() if ephemeral else spec.get("imagePullSecrets") or ()):
        if secret.get("name") not in pullable:
            raise refused(
                request,
                f'imagePullSecrets[{index}].name="{secret.get("name")}" is not allowed because '
                f"service account {name} does not reference that imagePullSecret",
            )


_USUAL = ("initContainers", "containers")
_TITLES = {
    "initContainers": "init container",
    "containers": "container",
    "ephemeralContainers": "ephemeral container",
}


def _volume_secrets(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("volume with ", volume["secret"].get("secretName", ""))
        for volume in spec.get("volumes") or ()
        if "secret" in volume
    ]


def _container_secrets(spec: Mapping[str, Any], kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    def uses() -> Iterator[tuple[str, str]]:
        for kind in kinds:
            for container in spec.get(kind) or ():
                title = f"{_TITLES[kind]} {container.get('name', '')}"
                for variable in container.get("env") or ():
                    secret = (variable.get("valueFrom") or {}).get("secretKeyRef")
                    if secret:
                        what = f"{title} with envVar {variable['name']} referencing "
                        yield what, secret.get("name", "")
                for source in container.get("envFrom") or ():
                    if source.get("secretRef"):
                        yield f"{title} with envFrom referencing ", source["secretRef"]["name"]

    return list(uses())
