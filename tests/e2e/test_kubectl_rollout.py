"""kubectl rolls out, back and over the node: rollouts, cordons, taints, drains."""

import re

from tests.e2e.conftest import Space

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {kubernetes.io/change-cause: first}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: hello, image: "pinnace.dev/hello:1"}]
"""


def deployed(space: Space) -> None:
    space.apply(DEPLOYMENT)
    said = space.kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    assert said.endswith('deployment "web" successfully rolled out\n')


def history(space: Space) -> list[list[str]]:
    shown = space.kubectl("rollout", "history", "deploy/web").strip().splitlines()
    assert shown[0].strip() == "deployment.apps/web"
    assert shown[1].split() == ["REVISION", "CHANGE-CAUSE"]
    return [line.split(maxsplit=1) for line in shown[2:]]


def pod_variables(space: Space) -> set[str]:
    path = "{.items[*].spec.containers[0].env[?(@.name=='A')].value}"
    return set(space.value("pods", path=path).split())


def test_a_rollout_is_kept_in_history_and_undone(space: Space) -> None:
    deployed(space)
    space.kubectl("set", "env", "deploy/web", "A=second")
    space.kubectl("annotate", "deploy/web", "kubernetes.io/change-cause=second", "--overwrite")
    space.kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    assert pod_variables(space) == {"second"}
    space.until(lambda: history(space) == [["1", "first"], ["2", "second"]])
    assert "A:\tsecond" in space.kubectl("rollout", "history", "deploy/web", "--revision=2")
    assert space.kubectl("rollout", "undo", "deploy/web") == "deployment.apps/web rolled back\n"
    space.kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    space.until(lambda: [revision for revision, _ in history(space)] == ["2", "3"])
    again = space.kubectl("rollout", "undo", "deploy/web", "--to-revision=3")
    assert "skipped rollback (current template already matches revision 3)" in again
    assert space.refused("rollout", "undo", "deploy/web", "--to-revision=9") == (
        "error: unable to find specified revision 9 in history"
    )


def test_a_restart_replaces_every_pod(space: Space) -> None:
    deployed(space)
    before = set(space.kubectl("get", "pods", "-o", "name").split())
    said = space.kubectl("rollout", "restart", "deploy/web")
    assert said == "deployment.apps/web restarted\n"
    space.kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    space.until(lambda: before.isdisjoint(space.kubectl("get", "pods", "-o", "name").split()))
    template = space.get("deploy", "web")["spec"]["template"]["metadata"]
    assert "kubectl.kubernetes.io/restartedAt" in template["annotations"]


def test_a_paused_rollout_waits_until_it_is_resumed(space: Space) -> None:
    deployed(space)
    assert space.kubectl("rollout", "pause", "deploy/web") == "deployment.apps/web paused\n"
    assert space.refused("rollout", "pause", "deploy/web") == (
        'error: deployments.apps "web" is already paused'
    )
    space.kubectl("set", "env", "deploy/web", "A=b")
    generation = space.value("deploy", "web", path="{.metadata.generation}")
    space.wait("deploy/web", f"--for=jsonpath={{.status.observedGeneration}}={generation}")
    assert len(space.get("rs")["items"]) == 1
    assert space.kubectl("rollout", "resume", "deploy/web") == "deployment.apps/web resumed\n"
    space.kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    assert len(space.get("rs")["items"]) == 2


def test_a_rollout_that_cannot_progress_says_so(space: Space) -> None:
    broken = DEPLOYMENT.replace("pinnace.dev/hello:1", "127.0.0.1:9/none:1")
    space.apply(broken.replace("replicas: 2", "replicas: 1\n  progressDeadlineSeconds: 1"))
    said = space.refused("rollout", "status", "deploy/web", "--timeout=20s")
    assert said == 'error: deployment "web" exceeded its progress deadline'
    reason = "{.status.conditions[?(@.type=='Progressing')].reason}"
    assert space.value("deploy", "web", path=reason) == "ProgressDeadlineExceeded"


def test_describe_shows_both_sets_of_a_rollout(space: Space) -> None:
    deployed(space)
    space.kubectl("set", "env", "deploy/web", "A=b")
    space.kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    shown = space.kubectl("describe", "deploy", "web")
    assert re.search(
        r"^Replicas: +2 desired \| 2 updated \| 2 total \| 2 available", shown, re.MULTILINE
    )
    assert re.search(r"^OldReplicaSets: +web-\w+ \(0/0 replicas created\)$", shown, re.MULTILINE)
    assert re.search(r"^NewReplicaSet: +web-\w+ \(2/2 replicas created\)$", shown, re.MULTILINE)
    assert re.search(r"ScalingReplicaSet .*Scaled up replica set web-\w+ from 0 to 2", shown)


def test_a_cordoned_node_takes_no_pods_until_uncordoned(space: Space) -> None:
    try:
        assert space.kubectl("cordon", "pi") == "node/pi cordoned\n"
        assert space.kubectl("cordon", "pi") == "node/pi already cordoned\n"
        assert "Ready,SchedulingDisabled" in space.kubectl("get", "node", "pi")
        space.kubectl("run", "late", "--image=pinnace.dev/hello:1")
        space.wait("pod/late", "--for=jsonpath={.status.conditions[0].reason}=Unschedulable")
        message = "{.status.conditions[?(@.type=='PodScheduled')].message}"
        assert "1 node(s) were unschedulable" in space.value("pod", "late", path=message)
        assert "FailedScheduling" in space.until(
            lambda: space.kubectl("events", "--for=pod/late", "--types=Warning")
        )
    finally:
        assert space.kubectl("uncordon", "pi") == "node/pi uncordoned\n"
    space.wait("pod/late", "--for=condition=Ready")


def test_a_taint_keeps_away_and_throws_out_what_does_not_tolerate_it(space: Space) -> None:
    space.kubectl("run", "out", "--image=pinnace.dev/hello:1", "--overrides", GRACELESS)
    space.kubectl("run", "stays", "--image=pinnace.dev/hello:1", "--overrides", TOLERANT)
    space.wait("pod/out", "pod/stays", "--for=condition=Ready")
    taint = f"test/{space.name}=x:NoExecute"
    try:
        assert space.kubectl("taint", "nodes", "pi", taint) == "node/pi tainted\n"
        space.kubectl("wait", "pod/out", "--for=delete", "--timeout=20s")
        assert space.value("pod", "stays", path="{.status.phase}") == "Running"
    finally:
        assert space.kubectl("taint", "nodes", "pi", f"{taint}-") == "node/pi untainted\n"


GRACELESS = '{"spec": {"terminationGracePeriodSeconds": 0}}'
TOLERANT = '{"spec": {"terminationGracePeriodSeconds": 0, "tolerations": [{"operator": "Exists"}]}}'


def test_a_drain_respects_budgets_and_tells_what_it_leaves(space: Space) -> None:
    ours = f"app={space.name}"  # a drain looks into every namespace
    space.apply(DEPLOYMENT.replace("app: web", f"app: {space.name}"))
    space.kubectl("run", "alone", "--image=pinnace.dev/hello:1", "--overrides", GRACELESS)
    space.kubectl("create", "pdb", "web", f"--selector={ours}", "--min-available=2")
    space.wait("pdb/web", "--for=jsonpath={.status.currentHealthy}=2")
    space.wait("pod/alone", "--for=condition=Ready")
    drain = ("drain", "pi", f"--pod-selector={ours}")
    try:
        unmanaged = space.refused("drain", "pi", "--pod-selector=run=alone", "--timeout=1s")
        assert "cannot delete Pods that declare no controller" in unmanaged
        stuck = space.refused(*drain, "--timeout=2s")
        assert "Cannot evict pod as it would violate the pod's disruption budget" in stuck
        assert len(space.get("pods", "-l", ours)["items"]) == 2
        space.kubectl("delete", "pdb", "web")
        before = set(space.kubectl("get", "pods", "-l", ours, "-o", "name").split())
        assert "node/pi drained" in space.kubectl(*drain, "--timeout=20s")
        left = set(space.kubectl("get", "pods", "-l", ours, "-o", "name").split())
        assert before.isdisjoint(left)
    finally:
        space.kubectl("uncordon", "pi")
    space.kubectl("rollout", "status", "deploy/web", "--timeout=30s")
