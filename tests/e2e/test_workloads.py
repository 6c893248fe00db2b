"""DaemonSets, StatefulSets and CronJobs as people use them, with kubectl."""

import re

from tests.e2e.conftest import Space

DAEMON_SET = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, annotations: {kubernetes.io/change-cause: first}}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: hello, image: "pinnace.dev/hello:1"}]
"""

STATEFUL_SET = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: pod}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: hello, image: "pinnace.dev/hello:1"}]
"""

CRON_JOB = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "@yearly"
  timeZone: Europe/Berlin
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - {name: tick, image: "docker.io/library/busybox:1.35", command: [echo, tock]}
"""

PATH = "{.items[*].spec.containers[0].env[?(@.name=='A')].value}"


def rolled_out(space: Space, what: str) -> str:
    return space.kubectl("rollout", "status", what, "--timeout=60s")


def values(space: Space) -> list[str]:
    return space.value("pods", path=PATH).split()


def revisions(space: Space, what: str) -> list[str]:
    shown = space.kubectl("rollout", "history", what).strip().splitlines()
    return [line.split()[0] for line in shown[2:]]


def test_a_daemon_set_runs_on_the_node_rolls_out_and_is_undone(space: Space) -> None:
    space.apply(DAEMON_SET)
    assert rolled_out(space, "ds/agent").endswith('daemon set "agent" successfully rolled out\n')
    (pod,) = space.get("pods")["items"]
    assert pod["spec"]["nodeName"] == "pi"
    row = space.kubectl("get", "ds", "agent", "--no-headers").split()
    assert row[1:7] == ["1", "1", "1", "1", "1", "<none>"]
    space.kubectl("set", "env", "ds/agent", "A=second")
    rolled_out(space, "ds/agent")
    assert values(space) == ["second"]
    assert "A:\tsecond" in space.kubectl("rollout", "history", "ds/agent", "--revision=2")
    assert space.kubectl("rollout", "undo", "ds/agent") == "daemonset.apps/agent rolled back\n"
    rolled_out(space, "ds/agent")
    space.until(lambda: revisions(space, "ds/agent") == ["2", "3"])
    assert values(space) == []
    space.kubectl("rollout", "undo", "ds/agent", "--to-revision=3")  # that is where it is
    assert revisions(space, "ds/agent") == ["2", "3"]
    space.kubectl("rollout", "restart", "ds/agent")
    rolled_out(space, "ds/agent")
    assert "SuccessfulCreate" in space.kubectl("describe", "ds", "agent")


def test_a_daemon_set_leaves_a_node_that_no_longer_fits(space: Space) -> None:
    space.apply(DAEMON_SET)
    rolled_out(space, "ds/agent")
    selector = '{"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}}'
    space.kubectl("patch", "ds", "agent", "-p", selector)
    space.until(lambda: not space.get("pods")["items"])
    assert space.value("ds", "agent", path="{.status.desiredNumberScheduled}") == "0"
    try:
        space.kubectl("label", "node", "pi", "disk=ssd")
        space.until(lambda: space.value("ds", "agent", path="{.status.numberReady}") == "1")
    finally:
        space.kubectl("label", "node", "pi", "disk-")
    space.until(lambda: not space.get("pods")["items"])


def test_pods_of_a_stateful_set_have_names_that_last(space: Space) -> None:
    space.apply(STATEFUL_SET)
    said = rolled_out(space, "sts/pod")
    assert said.endswith("partitioned roll out complete: 2 new pods have been updated...\n")
    for pod in ("pod-0", "pod-1"):
        space.until(lambda pod=pod: is_found(space, pod))
    assert space.kubectl("exec", "pod-1", "--", "hostname", "-f").strip() == full_name(
        space, "pod-1"
    )
    before = space.value("pod", "pod-0", path="{.metadata.uid}")
    space.kubectl("delete", "pod", "pod-0")
    space.until(lambda: uid(space, "pod-0") not in ("", before))
    space.wait("pod/pod-0", "--for=condition=Ready")
    space.until(lambda: is_found(space, "pod-0"))


def uid(space: Space, pod: str) -> str:
    return space.value("pod", pod, "--ignore-not-found", path="{.metadata.uid}")


def full_name(space: Space, pod: str) -> str:
    return f"{pod}.db.{space.name}.svc.cluster.local"


def is_found(space: Space, pod: str) -> bool:
    """Whether the other pod gets the address of this one by its name."""
    asked = "pod-1" if pod == "pod-0" else "pod-0"
    argv = ("exec", asked, "--", "nslookup", full_name(space, pod))
    address = space.value("pod", pod, path="{.status.podIP}")
    return f"Address: {address}\n" in space.run(*argv, check=False).stdout


def test_a_stateful_set_rolls_out_is_undone_and_scaled(space: Space) -> None:
    space.apply(STATEFUL_SET)
    rolled_out(space, "sts/pod")
    space.kubectl("set", "env", "sts/pod", "A=second")
    rolled_out(space, "sts/pod")
    assert values(space) == ["second", "second"]
    assert revisions(space, "sts/pod") == ["1", "2"]
    assert space.kubectl("rollout", "undo", "sts/pod") == "statefulset.apps/pod rolled back\n"
    rolled_out(space, "sts/pod")
    assert values(space) == []
    assert revisions(space, "sts/pod") == ["2", "3"]
    space.kubectl("rollout", "undo", "sts/pod", "--to-revision=3")  # that is where it is
    assert revisions(space, "sts/pod") == ["2", "3"]
    space.kubectl("scale", "sts/pod", "--replicas=1")
    space.until(lambda: space.kubectl("get", "pods", "-o", "name").split() == ["pod/pod-0"])
    assert space.value("sts", "pod", path="{.spec.replicas}") == "1"
    shown = space.kubectl("describe", "sts", "pod")
    assert re.search(r"SuccessfulDelete .*Delete Pod pod-1 in StatefulSet pod successful", shown)


def test_claims_are_made_for_each_pod_and_kept(space: Space) -> None:
    template = """
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"""
    space.apply(STATEFUL_SET.rstrip().replace("replicas: 2", "replicas: 1") + template)
    space.until(lambda: space.value("pvc", path="{.items[*].metadata.name}") == "data-pod-0")
    volume = "{.spec.volumes[?(@.name=='data')].persistentVolumeClaim.claimName}"
    space.until(lambda: space.value("pods/pod-0", "--ignore-not-found", path=volume))
    space.kubectl("delete", "sts", "pod")
    assert space.value("pvc", path="{.items[*].metadata.name}") == "data-pod-0"


def test_a_cron_job_is_run_by_hand_and_by_the_clock(space: Space) -> None:
    space.apply(CRON_JOB)
    row = space.kubectl("get", "cronjob", "tick", "--no-headers").split()
    assert row[1:6] == ["@yearly", "Europe/Berlin", "False", "0", "<none>"]
    made = space.kubectl("create", "job", "by-hand", "--from=cronjob/tick")
    assert made == "job.batch/by-hand created\n"
    space.wait("job/by-hand", "--for=condition=Complete")
    assert space.kubectl("logs", "job/by-hand") == "tock\n"
    space.until(lambda: space.value("cronjob", "tick", path="{.status.lastSuccessfulTime}"))
    space.kubectl("patch", "cronjob", "tick", "-p", '{"spec": {"schedule": "@every 2s"}}')
    jobs = "{.items[*].metadata.name}"
    names = space.until(lambda: re.findall(r"tick-\d+", space.value("jobs", path=jobs)))
    space.kubectl("patch", "cronjob", "tick", "-p", '{"spec": {"suspend": true}}')
    space.wait(f"job/{names[0]}", "--for=condition=Complete")
    assert "Created job tick-" in space.kubectl("describe", "cronjob", "tick")
