"""
The Job that upgrades a node which is not one of Pinnace's. Pure.

As system-upgrade-controller makes it, so that its images work: the name, the environment, the
node's root at ``/host``, all of the node's namespaces and every privilege. Cordoning, draining and
whose turn it is are the plan's matter, so nothing of that is in the Job.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from operators.upgrade.fields import Fields

PLAN_LABEL = "upgrade.pinnace.dev/plan"
UID_LABEL = "upgrade.pinnace.dev/plan-uid"
NODE_LABEL = "upgrade.pinnace.dev/node"
VERSION_LABEL = "upgrade.pinnace.dev/version"
BACKOFF, DEADLINE = 2, 900
# A day: an operator that was away finds what came of it. The plan removes it earlier.
TTL = 86400
_MOST = 2**31 - 1
_LONGEST_NAME = 63
_CONTAINER = ("image", "command", "args", "env", "envFrom", "securityContext", "volumes")
_PRIVILEGED = {"privileged": True, "capabilities": {"add": ["CAP_SYS_BOOT"]}}
_HOST, _POD = "/host", "/run/system-upgrade/pod"
_SECRETS = "/run/system-upgrade/secrets"
Template = Mapping[str, Any]


def validate(template: Template, path: str = "spec.jobTemplate") -> list[str]:
    """What is wrong, a line for each field; what the API would refuse it refuses itself."""
    fields = Fields(template, path)
    fields.only(
        *_CONTAINER,
        *("prepare", "secrets", "serviceAccountName", "imagePullSecrets", "priorityClassName"),
        *("tolerations", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"),
    )
    _check_container(fields)
    if (prepare := fields.inside("prepare")) is not None:
        prepare.only(*_CONTAINER)
        _check_container(prepare)
    for name in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        fields.number(name, None, low=0, high=_MOST)
    for name in ("secrets", "imagePullSecrets", "tolerations"):
        for index, item in enumerate(fields.items(name)):
            if not isinstance(item, Mapping):
                fields.wrong(f"{name}[{index}]", "must be an object")
            elif name != "tolerations" and not item.get("name"):
                fields.wrong(f"{name}[{index}].name", "is needed")
    return fields.errors


def _check_container(fields: Fields) -> None:
    fields.text("image", required=True)
    fields.texts("command"), fields.texts("args"), fields.items("env"), fields.items("envFrom")
    fields.inside("securityContext")
    for index, volume in enumerate(fields.items("volumes")):
        for name in ("name", "source", "destination"):
            if not isinstance(volume, Mapping) or not volume.get(name):
                fields.wrong(f"volumes[{index}].{name}", "is needed")


def job(plan: Mapping[str, Any], node: str, version: str, namespace: str) -> dict[str, Any]:
    """``plan``: an UpgradePlan with ``spec.jobTemplate``."""
    template: Template = plan["spec"]["jobTemplate"]
    metadata, digest = plan["metadata"], digest_of(template, version)
    labels = {
        PLAN_LABEL: short(metadata["name"]),
        UID_LABEL: metadata["uid"],
        NODE_LABEL: short(node),
        VERSION_LABEL: short(_munged(version)),
    }
    deadline = template.get("activeDeadlineSeconds", DEADLINE)
    spec = {
        "backoffLimit": template.get("backoffLimit", BACKOFF),
        "ttlSecondsAfterFinished": template.get("ttlSecondsAfterFinished", TTL),
        "completions": 1,
        "parallelism": 1,
        "template": {
            "metadata": {"labels": labels},
            "spec": _pod(template, plan=metadata["name"], node=node, version=version),
        },
    }
    # No owner: whoever deletes the plan must not stop a node in the middle of it.
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": short(f"apply-{metadata['name']}-on-{node}-with-{digest}"),
            "namespace": namespace,
            "labels": labels,
        },
        # 0 is without end, as system-upgrade-controller reads it.
        "spec": {**spec, **({"activeDeadlineSeconds": deadline} if deadline else {})},
    }


def digest_of(template: Template, version: str) -> str:
    """Another for whatever would run otherwise."""
    text = version + json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha224(text.encode()).hexdigest()


def short(name: str) -> str:
    """A name of at most 63 characters, which is also a label's value; long ones keep a digest."""
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 6]}-{hashlib.sha256(name.encode()).hexdigest()[:5]}"
    return name


def _munged(version: str) -> str:
    """No label's value and no tag of an image has a plus."""
    return version.replace("+", "-")


def _pod(template: Template, *, plan: str, node: str, version: str) -> dict[str, Any]:
    environment = [
        _field("SYSTEM_UPGRADE_NODE_NAME", "spec.nodeName"),
        _field("SYSTEM_UPGRADE_POD_NAME", "metadata.name"),
        _field("SYSTEM_UPGRADE_POD_UID", "metadata.uid"),
        {"name": "SYSTEM_UPGRADE_PLAN_NAME", "value": plan},
        {"name": "SYSTEM_UPGRADE_PLAN_LATEST_HASH", "value": digest_of(template, version)},
        {"name": "SYSTEM_UPGRADE_PLAN_LATEST_VERSION", "value": _munged(version)},
    ]
    containers = [("prepare", template.get("prepare")), ("upgrade", template)]
    made = [
        _container(name, given, template, environment=environment, version=version)
        for name, given in containers
        if given
    ]
    account = template.get("serviceAccountName")
    pod = {
        "nodeName": node,
        "hostIPC": True,
        "hostPID": True,
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "restartPolicy": "Never",
        "automountServiceAccountToken": bool(account),
        "tolerations": [*_TOLERATED, *(template.get("tolerations") or ())],
        "initContainers": made[:-1],
        "containers": made[-1:],
        "volumes": _volumes(template),
        "serviceAccountName": account,
        "priorityClassName": template.get("priorityClassName"),
        "imagePullSecrets": template.get("imagePullSecrets"),
    }
    return {name: value for name, value in pod.items() if value not in (None, [], "")}


# The node is cordoned, and its kubelet may be away while it is replaced.
_TOLERATED = [
    {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
]


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _container(
    name: str,
    given: Template,
    template: Template,
    *,
    environment: Sequence[Mapping[str, Any]],
    version: str,
) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [
        {"name": "host-root", "mountPath": _HOST},
        {"name": "pod-info", "mountPath": _POD},
    ]
    mounts += [
        {"name": _secret_name(secret), "mountPath": _secret_path(secret), "readOnly": True}
        for secret in template.get("secrets") or ()
    ]
    mounts += [
        {"name": volume["name"], "mountPath": volume["destination"]}
        for volume in given.get("volumes") or ()
    ]
    found = {
        "name": name,
        "image": image(given["image"], version),
        "command": given.get("command"),
        "args": given.get("args"),
        "env": [*environment, *(given.get("env") or ())],
        "envFrom": given.get("envFrom"),
        "securityContext": given.get("securityContext") or _PRIVILEGED,
        "volumeMounts": mounts,
    }
    return {key: value for key, value in found.items() if value}


def image(named: str, version: str) -> str:
    """Without a tag of its own it has the version's."""
    last = named.rpartition("/")[2]
    return named if ":" in last or "@" in named else f"{named}:{_munged(version)}"


def _volumes(template: Template) -> list[dict[str, Any]]:
    items = [
        {"path": name, "fieldRef": {"fieldPath": f"metadata.{name}"}}
        for name in ("labels", "annotations")
    ]
    found: list[dict[str, Any]] = [
        {"name": "host-root", "hostPath": {"path": "/", "type": "Directory"}},
        {"name": "pod-info", "downwardAPI": {"items": items}},
    ]
    for secret in template.get("secrets") or ():
        source = {"secretName": secret["name"]}
        if secret.get("defaultMode") is not None:
            source["defaultMode"] = secret["defaultMode"]
        found.append({"name": _secret_name(secret), "secret": source})
    own = [
        *(template.get("volumes") or ()),
        *((template.get("prepare") or {}).get("volumes") or ()),
    ]
    named = {volume["name"]: {"path": volume["source"]} for volume in own}
    return found + [{"name": name, "hostPath": path} for name, path in named.items()]


def _secret_name(secret: Mapping[str, Any]) -> str:
    return short(f"secret-{secret['name']}".replace(".", "-"))


def _secret_path(secret: Mapping[str, Any]) -> str:
    path = str(secret.get("path") or secret["name"])
    return path if path.startswith("/") else f"{_SECRETS}/{path}"


def outcome(found: Mapping[str, Any]) -> tuple[str, str]:
    """("Complete" | "Failed" | "", message) of a Job."""
    status = found.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] in {"Complete", "Failed"} and condition["status"] == "True":
            said = (condition.get("reason"), condition.get("message"))
            return condition["type"], ": ".join(filter(None, said))
    return "", ""


def waits_for(pods: Sequence[Mapping[str, Any]]) -> str:
    """Why no container runs, as the newest pod says; "": one does, or nobody says."""
    for pod in sorted(pods, key=lambda p: p["metadata"].get("creationTimestamp") or "")[-1:]:
        status = pod.get("status") or {}
        names = ("initContainerStatuses", "containerStatuses")
        for container in [entry for name in names for entry in status.get(name) or ()]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") not in {None, "PodInitializing", "ContainerCreating"}:
                return ": ".join(filter(None, (waiting["reason"], waiting.get("message"))))
        if status.get("reason"):
            return f"{status['reason']}: {status.get('message', '')}"
    return ""
