"""
Defaults of networking, storage, rbac, admission, extension and resource kinds.

``timeAdded`` of device taints is not set here: it needs the time of the write, which
belongs to whoever handles the request. Source: the fields' documentation.
"""

from controlplane.objects.defaults_pods import Dict, dig, fill, resource_list, volume_source

_RBAC = "rbac.authorization.k8s.io"


def network_policy(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction, ()):
            for port in rule.get("ports", ()):
                port.setdefault("protocol", "TCP")


def ingress_class(obj: Dict) -> None:
    parameters = dig(obj, "spec", "parameters")
    if parameters:
        parameters.setdefault("scope", "Cluster")


def endpoint_slice(obj: Dict) -> None:
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def storage_class(obj: Dict) -> None:
    fill(obj, {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})


def csi_driver(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    fill(
        spec,
        {
            "attachRequired": True,
            "podInfoOnMount": False,
            "storageCapacity": False,
            "fsGroupPolicy": "ReadWriteOnceWithFSType",
            "requiresRepublish": False,
            "seLinuxMount": False,
        },
    )
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def volume_attachment(obj: Dict) -> None:
    inline = dig(obj, "spec", "source", "inlineVolumeSpec")
    if inline:
        resource_list(inline.get("capacity"))
        volume_source(inline)


def role_binding(obj: Dict) -> None:
    reference = obj.setdefault("roleRef", {})
    if not reference.get("apiGroup"):
        reference["apiGroup"] = _RBAC
    for subject in obj.get("subjects", ()):
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = _RBAC


def priority_class(obj: Dict) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def validating_webhooks(obj: Dict) -> None:
    for webhook in obj.get("webhooks", ()):
        _webhook(webhook)


def mutating_webhooks(obj: Dict) -> None:
    for webhook in obj.get("webhooks", ()):
        _webhook(webhook)
        webhook.setdefault("reinvocationPolicy", "Never")


def _webhook(webhook: Dict) -> None:
    fill(webhook, {"failurePolicy": "Fail", "timeoutSeconds": 10})
    _matching(webhook)
    _service_port(dig(webhook, "clientConfig", "service"))
    _rules(webhook, "rules")


def _matching(target: Dict) -> None:
    fill(target, {"matchPolicy": "Equivalent"})
    target.setdefault("namespaceSelector", {})
    target.setdefault("objectSelector", {})


def _rules(target: Dict, name: str) -> None:
    for rule in target.get(name, ()):
        rule.setdefault("scope", "*")


def _service_port(reference: Dict) -> None:
    if reference:
        reference.setdefault("port", 443)


def admission_policy(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    _match_resources(spec.get("matchConstraints"))


def admission_binding(obj: Dict) -> None:
    _match_resources(dig(obj, "spec").get("matchResources"))


def _match_resources(match: Dict | None) -> None:
    if match is not None:
        _matching(match)
        _rules(match, "resourceRules")
        _rules(match, "excludeResourceRules")


def custom_resource_definition(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if not names.get("singular"):
        names["singular"] = names.get("kind", "").lower()
    if not names.get("listKind") and names.get("kind"):
        names["listKind"] = f"{names['kind']}List"
    spec.setdefault("conversion", {"strategy": "None"})
    _service_port(dig(spec, "conversion", "webhook", "clientConfig", "service"))
    status = obj.setdefault("status", {})
    if not status.get("storedVersions"):
        stored = [v["name"] for v in spec.get("versions", ()) if v.get("storage")]
        if stored:
            status["storedVersions"] = stored[:1]


def api_service(obj: Dict) -> None:
    _service_port(dig(obj, "spec", "service"))


def flow_schema(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000


def priority_level(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    if "exempt" in spec:
        fill(spec["exempt"], {"nominalConcurrencyShares": 0, "lendablePercent": 0})
    limited = spec.get("limited")
    if limited is None:
        return
    fill(limited, {"nominalConcurrencyShares": 30, "lendablePercent": 0})
    queuing = dig(limited, "limitResponse").get("queuing")
    if queuing is not None:
        for name, value in (("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)):
            if not queuing.get(name):
                queuing[name] = value


def resource_claim(obj: Dict) -> None:
    _device_requests(dig(obj, "spec"))
    for result in dig(obj, "status", "allocation", "devices").get("results", ()):
        _tolerations(result)


def resource_claim_template(obj: Dict) -> None:
    _device_requests(dig(obj, "spec", "spec"))


def _device_requests(spec: Dict) -> None:
    for request in dig(spec, "devices").get("requests", ()):
        exactly = request.get("exactly")
        wanted = [exactly] if exactly else []
        for item in (*wanted, *request.get("firstAvailable", ())):
            item.setdefault("allocationMode", "ExactCount")
            if item["allocationMode"] == "ExactCount":
                item.setdefault("count", 1)
            _tolerations(item)


def _tolerations(item: Dict) -> None:
    for toleration in item.get("tolerations", ()):
        if not toleration.get("operator"):
            toleration["operator"] = "Equal"


def resource_slice(obj: Dict) -> None:
    for device in dig(obj, "spec").get("devices", ()):
        for mapping in (device.get("nodeAllocatableResourceMappings") or {}).values():
            mapping.setdefault("allocationMultiplier", "1")


def token_request(obj: Dict) -> None:
    obj.setdefault("spec", {}).setdefault("expirationSeconds", 3600)
