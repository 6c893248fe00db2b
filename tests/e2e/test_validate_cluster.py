"""A cluster as its users know it: every way to a pod, names, data, and a restart."""

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Space, a_space
from tests.e2e.node import ADDRESS, ROOT, Node

BUSYBOX = "docker.io/library/busybox:1.35"
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: pinnace.dev/hello:1
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: inside}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: on-the-node}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 8088, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: by-host}
spec:
  rules:
  - host: web.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: inside, port: {number: 80}}}}
"""
EVERYWHERE = f"""
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: everywhere}}
spec:
  selector: {{matchLabels: {{app: everywhere}}}}
  template:
    metadata: {{labels: {{app: everywhere}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: c, image: "{BUSYBOX}", command: [sleep, "3600"]}}]
"""
CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 8Mi}}}
"""
WRITER = f"""
apiVersion: v1
kind: Pod
metadata: {{name: keeper}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: "{BUSYBOX}"
    command: [sleep, "3600"]
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
"""
GREETING = "Hello from Pinnace"


@pytest.fixture(scope="module")
def cluster(whole: Node) -> Iterator[Space]:
    """The web server and what leads to it, and a pod on each node to ask from."""
    with a_space(whole) as made:
        made.apply(f"{WEB}---{EVERYWHERE}")
        made.kubectl("rollout", "status", "deployment/web", "daemonset/everywhere")
        yield made


def field(space: Space, service: str, path: str) -> str:
    return space.value("service", service, path=f"{{{path}}}")


def inner_host(space: Space) -> str:
    return f"inside.{space.name}.svc.cluster.local"


def everything_answers(space: Space, *, by_host: bool) -> None:
    """By all addresses, from the node and from a pod; waits until it does."""
    node = space.node
    node_port = field(space, "on-the-node", ".spec.ports[0].nodePort")
    for url in (
        f"http://{field(space, 'inside', '.spec.clusterIP')}/",
        f"http://{ADDRESS}:{node_port}/",
        f"http://{ADDRESS}:8088/",
    ):
        node.until(lambda url=url: GREETING in node.http(url))
    ask = ("wget", "-qO-")
    space.until(lambda: GREETING in from_pod(space, *ask, f"http://{inner_host(space)}/"))
    if by_host:
        header = ("--header", "Host: web.example.com", f"http://{ADDRESS}/")
        space.until(lambda: GREETING in from_pod(space, *ask, *header))


def from_pod(space: Space, *argv: str) -> str:
    return space.run("exec", "daemonset/everywhere", "--", *argv, check=False).stdout


def test_a_service_is_reached_in_every_way(cluster: Space) -> None:
    cluster.until(lambda: field(cluster, "outside", ".status.loadBalancer.ingress[0].ip"))
    assert field(cluster, "outside", ".status.loadBalancer.ingress[0].ip") == ADDRESS
    everything_answers(cluster, by_host=False)


def test_a_host_leads_to_its_service(cluster: Space, ingress: Node) -> None:
    everything_answers(cluster, by_host=True)


def test_a_daemon_set_has_a_pod_on_every_node(cluster: Space) -> None:
    status = cluster.get("daemonset", "everywhere")["status"]
    nodes = len(cluster.node.get("nodes")["items"])
    assert (status["desiredNumberScheduled"], status["numberReady"]) == (nodes, nodes)


def test_the_first_example_is_served_beside_the_ingress_controller(whole: Node) -> None:
    example = str(ROOT / "examples" / "hello.yaml")
    whole.kubectl("apply", "-f", example)
    whole.until(lambda: "Hello from Pinnace" in whole.http(f"http://{ADDRESS}:8080/"))
    whole.kubectl("delete", "-f", example, "--timeout=60s")


def test_names_are_found_from_a_pod(cluster: Space) -> None:
    found = from_pod(cluster, "nslookup", "kubernetes.default.svc.cluster.local")
    assert "10.43.0.1" in found
    # The name that proxies are told to ask at.
    found = from_pod(cluster, "nslookup", "kube-dns.kube-system.svc.cluster.local")
    assert "Address: 10.43.0.10\n" in found
    assert field(cluster, "inside", ".spec.clusterIP") in from_pod(
        cluster, "nslookup", inner_host(cluster)
    )


def test_data_outlives_the_pod_that_wrote_it(cluster: Space) -> None:
    cluster.apply(f"{CLAIM}---{WRITER}")
    cluster.wait("pod/keeper", "--for=condition=Ready", timeout=60)
    cluster.kubectl("exec", "keeper", "--", "sh", "-c", "echo kept > /data/file")
    assert cluster.value("pvc", "data", path="{.status.phase}") == "Bound"
    cluster.kubectl("delete", "pod", "keeper")
    cluster.apply(WRITER)
    cluster.wait("pod/keeper", "--for=condition=Ready", timeout=60)
    assert cluster.kubectl("exec", "keeper", "--", "cat", "/data/file") == "kept\n"


def test_a_restart_of_the_node_leaves_the_pods_as_they_are(cluster: Space) -> None:
    def pods() -> dict[str, tuple[str, int]]:
        items = cluster.get("pods")["items"]
        states = [(i["metadata"]["name"], i["status"]["containerStatuses"][0]) for i in items]
        return {name: (state["containerID"], state["restartCount"]) for name, state in states}

    before = pods()
    node = cluster.node
    node.stop()
    node.start()
    assert pods() == before
    everything_answers(cluster, by_host=False)
    assert "10.43.0.1" in from_pod(cluster, "nslookup", "kubernetes.default.svc.cluster.local")
