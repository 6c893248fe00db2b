"""Pods on a real containerd: what runs, in which order, with which environment."""

import base64
from pathlib import Path

import pytest

from node.kubelet import files
from node.kubelet.base import CLAIMS, CONFIG_MAPS, PODS, SECRETS, SERVICES, TRUST_BUNDLES, VOLUMES
from tests.host.cri.containerd import BUSYBOX
from tests.host.kubelet.conftest import Node, config_map, pod, secret, service, until

pytestmark = pytest.mark.root

CONFIG_ERROR = {"reason": "CreateContainerConfigError", "message": 'configmap "late" not found'}


async def test_a_pod_runs_and_is_reported_ready_with_its_address(node: Node) -> None:
    node.api.put(PODS, pod("web"))
    status = await node.ready("web")
    assert status["phase"] == "Running"
    assert status["podIP"].startswith("10.42.")
    assert status["hostIP"] == "127.0.0.1"
    (container,) = status["containerStatuses"]
    assert (container["ready"], container["started"]) == (True, True)
    assert container["restartCount"] == 0
    assert container["containerID"].startswith("containerd://")
    assert container["image"] == "registry.test/busybox:1"
    assert "running" in container["state"]


async def test_a_pod_that_ends_well_has_succeeded(node: Node) -> None:
    node.api.put(PODS, pod("job", "echo done", spec={"restartPolicy": "Never"}))
    status = await node.phase("job", "Succeeded")
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert node.log("job") == "done"


async def test_init_containers_run_in_order_before_the_others(node: Node) -> None:
    def init(name: str) -> dict[str, object]:
        return {
            "name": name,
            "image": BUSYBOX,
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", f"echo {name} >> /shared/order"],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
        }

    spec = {
        "initContainers": [init("one"), init("two")],
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "restartPolicy": "Never",
    }
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    node.api.put(PODS, pod("ordered", "cat /shared/order", spec=spec, container=mounts))
    status = await node.phase("ordered", "Succeeded")
    assert node.log("ordered") == "one\ntwo"
    assert [s["ready"] for s in status["initContainerStatuses"]] == [True, True]


async def test_a_sidecar_starts_first_and_ends_last(node: Node) -> None:
    loop = "trap 'echo side-end; exit 0' TERM; echo side-begin; while :; do sleep 0.05; done"
    sidecar = {
        "name": "side",
        "image": BUSYBOX,
        "restartPolicy": "Always",
        "command": ["sh", "-c", loop],
    }
    spec = {"initContainers": [sidecar], "restartPolicy": "Never"}
    node.api.put(PODS, pod("with-sidecar", "echo main", spec=spec))
    status = await node.phase("with-sidecar", "Succeeded")
    (side,) = status["initContainerStatuses"]
    (main,) = status["containerStatuses"]
    assert side["state"]["terminated"]["exitCode"] == 0
    ended = main["state"]["terminated"]["finishedAt"]
    assert side["state"]["terminated"]["finishedAt"] >= ended
    assert node.log("with-sidecar", "side") == "side-begin\nside-end"


async def test_a_failed_init_container_fails_a_pod_that_is_never_restarted(node: Node) -> None:
    init = {"name": "bad", "image": BUSYBOX, "command": ["false"]}
    spec = {"initContainers": [init], "restartPolicy": "Never"}
    node.api.put(PODS, pod("bad-init", "echo never", spec=spec))
    status = await node.phase("bad-init", "Failed")
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 1
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}


async def test_a_crashing_container_is_restarted_at_once_and_then_backs_off(node: Node) -> None:
    node.api.put(PODS, pod("crash", "echo boom; exit 3"))

    def backing_off() -> bool:
        state = node.status("crash")["containerStatuses"][0]["state"]
        return bool(state.get("waiting", {}).get("reason") == "CrashLoopBackOff")

    await node.api.until(backing_off)
    (container,) = node.status("crash")["containerStatuses"]
    assert container["restartCount"] == 1
    assert container["lastState"]["terminated"]["exitCode"] == 3
    assert "back-off 10s restarting failed container=c" in container["state"]["waiting"]["message"]
    assert node.status("crash")["phase"] == "Running"
    assert node.log("crash", attempt=1) == "boom"
    await node.api.until(lambda: node.api.events("BackOff"))
    assert node.api.events("BackOff")[0]["message"].startswith(
        "Back-off restarting failed container c in pod crash_default("
    )


async def test_the_environment_comes_from_everywhere(node: Node) -> None:
    node.api.put(SECRETS, secret("s", {"PASSWORD": "xyz"}))
    node.api.put(CONFIG_MAPS, config_map("cm", {"COLOR": "red", "SIZE": "9"}))
    node.api.put(SERVICES, service("my-db", "10.43.0.77", 5432))
    node.api.put(SERVICES, service("kubernetes", "10.43.0.1", 443))
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(PRE_COLOR)-$$(A)-$(NOPE)"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "PASSWORD"}}},
        {
            "name": "GONE",
            "valueFrom": {"configMapKeyRef": {"name": "no", "key": "x", "optional": True}},
        },
    ]
    container = {
        "env": env,
        "envFrom": [{"prefix": "PRE_", "configMapRef": {"name": "cm"}}],
        "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
        "command": ["sh", "-c", "env; echo $(A)"],
    }
    node.api.put(PODS, pod("env", container=container, spec={"restartPolicy": "Never"}))
    status = await node.phase("env", "Succeeded")
    got = dict(line.split("=", 1) for line in node.log("env").splitlines() if "=" in line)
    assert got["B"] == "1-red-$(A)-$(NOPE)"
    assert got["PRE_SIZE"] == "9"
    assert (got["NAME"], got["IP"]) == ("env", status["podIP"])
    assert (got["CPU"], got["PASS"]) == ("1", "xyz")
    assert "GONE" not in got
    assert (got["MY_DB_SERVICE_HOST"], got["KUBERNETES_SERVICE_PORT"]) == ("10.43.0.77", "443")
    assert node.log("env").endswith("\n1")


async def test_a_missing_config_map_holds_the_container_until_it_comes(node: Node) -> None:
    env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "x"}}}]
    node.api.put(
        PODS, pod("late", "echo $X", container={"env": env}, spec={"restartPolicy": "Never"})
    )

    def waiting() -> object:
        return node.status("late")["containerStatuses"][0]["state"]["waiting"]

    await node.api.until(lambda: waiting() == CONFIG_ERROR)
    node.api.put(CONFIG_MAPS, config_map("late", {"x": "now"}))
    await node.phase("late", "Succeeded", 5)
    assert node.log("late") == "now"


async def test_volumes_show_config_secrets_the_pod_itself_and_a_token(node: Node) -> None:
    node.api.put(CONFIG_MAPS, config_map("files", {"a.txt": "A", "b.txt": "B"}))
    node.api.put(SECRETS, secret("keys", {"k": "K"}))
    sources = [
        {"configMap": {"name": "files", "items": [{"key": "a.txt", "path": "sub/a"}]}},
        {"secret": {"name": "keys"}},
        {
            "downwardAPI": {
                "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
            }
        },
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
    ]
    volumes = [{"name": "all", "projected": {"sources": sources, "defaultMode": 0o640}}]
    mounts = [
        {"name": "all", "mountPath": "/all"},
        {"name": "all", "mountPath": "/just/a", "subPath": "sub/a"},
    ]
    command = "cat /all/sub/a /all/k /just/a; echo; cat /all/labels; echo; cat /all/token; echo; "
    command += "stat -L -c %a /all/k; touch /all/x || echo locked; stat -f -c %T /all"
    made = pod(
        "volumes",
        command,
        meta={"labels": {"app": "x"}},
        spec={"volumes": volumes, "restartPolicy": "Never"},
        container={"volumeMounts": mounts},
    )
    node.api.put(PODS, made)
    await node.phase("volumes", "Succeeded")
    first, labels, token, mode, locked, where = [
        line for line in node.log("volumes").splitlines() if "Read-only" not in line
    ]
    assert first == "AKA"
    assert labels == 'app="x"'
    assert token.startswith("token-")
    assert (mode, locked, where) == ("640", "locked", "tmpfs")


async def test_a_changed_config_map_reaches_a_running_container(node: Node) -> None:
    node.api.put(CONFIG_MAPS, config_map("live", {"v": "old"}))
    volumes = [{"name": "v", "configMap": {"name": "live"}}]
    loop = "until [ $(cat /v/v) = new ]; do sleep 0.05; done; echo saw new"
    made = pod(
        "live",
        loop,
        spec={"volumes": volumes, "restartPolicy": "Never"},
        container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
    )
    node.api.put(PODS, made)
    await node.ready("live")
    node.api.put(CONFIG_MAPS, config_map("live", {"v": "new"}))
    await node.phase("live", "Succeeded", 5)


async def test_a_volume_may_be_mounted_within_one_that_is_read_only(node: Node) -> None:
    node.api.put(CONFIG_MAPS, config_map("outer", {"own": "old"}))
    node.api.put(CONFIG_MAPS, config_map("inner", {"more": "inner"}))
    node.api.put(SECRETS, secret("deeper", {"k": "K"}))
    volumes = [
        {"name": "outer", "configMap": {"name": "outer"}},
        {"name": "inner", "configMap": {"name": "inner"}},
        {"name": "deeper", "secret": {"secretName": "deeper"}},
        {"name": "absent", "configMap": {"name": "absent", "optional": True}},
    ]
    mounts = [
        {"name": "outer", "mountPath": "/etc/app"},
        {"name": "inner", "mountPath": "/etc/app/custom"},
        {"name": "deeper", "mountPath": "/etc/app/custom/a/b"},
        {"name": "absent", "mountPath": "/etc/app/none"},
    ]
    made = pod(
        "nested",
        "cat /etc/app/custom/more /etc/app/custom/a/b/k; ls /etc/app/none | wc -l; "
        "until [ $(cat /etc/app/own) = new ]; do sleep 0.05; done; cat /etc/app/custom/more",
        spec={"volumes": volumes, "restartPolicy": "Never"},
        container={"volumeMounts": mounts},
    )
    node.api.put(PODS, made)
    await node.ready("nested")
    # The new content must leave the places of the other volumes alone.
    node.api.put(CONFIG_MAPS, config_map("outer", {"own": "new", "other": "x"}))
    await node.phase("nested", "Succeeded", 5)
    assert node.log("nested").split() == ["innerK0", "inner"]


async def test_memory_volumes_are_tmpfs_and_gone_after_the_pod(node: Node) -> None:
    volumes = [{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]
    made = pod(
        "memory",
        "df -m /m | tail -1; mount | grep ' /m '; sleep 60",
        spec={"volumes": volumes, "terminationGracePeriodSeconds": 0},
        container={"volumeMounts": [{"name": "m", "mountPath": "/m"}]},
    )
    node.api.put(PODS, made)
    await node.ready("memory")
    folder = node.config.pods_dir / node.api.pod("memory")["metadata"]["uid"]
    assert files.mounts_below(folder)
    node.api.ask_to_delete("memory", 0)
    await node.api.until(lambda: not node.api.has(PODS, "default", "memory"))
    await node.idle()
    assert not folder.exists()


async def test_a_pod_knows_its_names(node: Node) -> None:
    spec = {
        "hostname": "me",
        "subdomain": "sub",
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["foo", "bar"]}],
        "dnsConfig": {"options": [{"name": "timeout", "value": "1"}]},
        "restartPolicy": "Never",
    }
    command = "hostname; cat /etc/hosts; cat /etc/resolv.conf"
    node.api.put(PODS, pod("names", command, spec=spec))
    status = await node.phase("names", "Succeeded")
    log = node.log("names").splitlines()
    assert log[0] == "me"
    assert f"{status['podIP']}\tme.sub.default.svc.cluster.local\tme" in log
    assert "1.2.3.4\tfoo\tbar" in log
    assert "nameserver 10.43.0.10" in log
    assert any(line.startswith("search default.svc.cluster.local svc.") for line in log)
    assert "options ndots:5 timeout:1" in log


async def test_security_contexts_are_applied(node: Node) -> None:
    container = {
        "securityContext": {
            "runAsUser": 1001,
            "runAsGroup": 2002,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "d", "mountPath": "/d"}],
    }
    spec = {
        "securityContext": {"fsGroup": 3003, "supplementalGroups": [4004]},
        "volumes": [{"name": "d", "emptyDir": {}}],
        "restartPolicy": "Never",
    }
    command = "id; touch /x || echo read-only; touch /d/f && stat -c %g /d/f; "
    command += "grep -E 'NoNewPrivs|CapEff' /proc/self/status"
    node.api.put(PODS, pod("secure", command, spec=spec, container=container))
    await node.phase("secure", "Succeeded")
    log = node.log("secure")
    for text in ("uid=1001 gid=2002", "3003", "4004", "read-only", "\n3003", "NoNewPrivs:\t1"):
        assert text in log
    assert "CapEff:\t0000000000000000" in log


async def test_an_image_that_runs_as_root_is_refused_when_root_is_forbidden(node: Node) -> None:
    container = {"securityContext": {"runAsNonRoot": True}}
    node.api.put(PODS, pod("not-root", "true", container=container))

    def message() -> str:
        state = node.status("not-root")["containerStatuses"][0]["state"]
        return str(state["waiting"].get("message", ""))

    await node.api.until(lambda: "image will run as root" in message())


async def test_an_image_that_is_not_there_is_reported(node: Node) -> None:
    container = {"image": "registry.test/nothing:1", "imagePullPolicy": "Never"}
    node.api.put(PODS, pod("no-image", container=container))

    def reason() -> str:
        return str(node.status("no-image")["containerStatuses"][0]["state"]["waiting"]["reason"])

    await node.api.until(lambda: reason() == "ErrImageNeverPull")


async def test_a_deleted_pod_ends_gracefully_and_leaves_nothing(node: Node) -> None:
    command = "trap 'echo bye; exit 0' TERM; echo hi; while :; do sleep 0.05; done"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}}
    node.api.put(PODS, pod("ends", command, container={"lifecycle": hook}))
    await node.ready("ends")
    uid = node.api.pod("ends")["metadata"]["uid"]
    logs: list[str] = []

    def ended() -> bool:
        if node.status("ends")["containerStatuses"][0]["state"].get("terminated"):
            logs.append(node.log("ends"))
        return bool(logs)

    node.api.ask_to_delete("ends", 5)
    await node.api.until(ended, 5)
    await node.api.until(lambda: not node.api.has(PODS, "default", "ends"), 5)
    await node.idle()
    assert logs[0] == "hi\nhook\nbye"
    assert not await node.runtime.containers({"io.kubernetes.pod.uid": uid})
    assert not await node.runtime.sandboxes({"io.kubernetes.pod.uid": uid})


async def test_the_termination_message_comes_from_the_file_or_the_log(node: Node) -> None:
    never = {"restartPolicy": "Never"}
    node.api.put(PODS, pod("said", "echo -n why > /dev/termination-log; exit 1", spec=never))
    fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    node.api.put(PODS, pod("logged", "echo oops; exit 1", spec=never, container=fallback))
    said = (await node.phase("said", "Failed"))["containerStatuses"][0]["state"]["terminated"]
    logged = (await node.phase("logged", "Failed"))["containerStatuses"][0]["state"]["terminated"]
    assert (said["message"], logged["message"]) == ("why", "oops\n")


async def test_a_deadline_ends_a_pod(node: Node) -> None:
    spec = {"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1}
    node.api.put(PODS, pod("late-job", spec=spec))
    status = await node.phase("late-job", "Failed")
    assert status["reason"] == "DeadlineExceeded"


async def test_host_paths_are_checked(node: Node) -> None:
    volumes = [{"name": "h", "hostPath": {"path": "/nowhere/at/all", "type": "Directory"}}]
    node.api.put(PODS, pod("no-path", spec={"volumes": volumes}))
    await node.api.until(lambda: node.api.events("FailedMount"))
    assert "is not a directory" in node.api.events("FailedMount")[0]["message"]


async def test_a_pod_on_the_hosts_network_has_its_address_and_names(node: Node) -> None:
    spec = {"hostNetwork": True, "restartPolicy": "Never"}
    node.api.put(PODS, pod("host", "cat /etc/hosts", spec=spec))
    status = await node.phase("host", "Succeeded")
    assert status["podIP"] == "127.0.0.1"
    assert "# Kubernetes-managed hosts file (host network)." in node.log("host")


async def test_a_bound_claim_is_mounted_and_other_volumes_refused_by_name(
    node: Node, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    claim = {"spec": {"volumeName": "pv1"}, "status": {"phase": "Bound"}}
    node.api.put(CLAIMS, {"metadata": {"name": "mine", "namespace": "default"}, **claim})
    local = {"local": {"path": str(tmp_path / "disk")}}
    node.api.put(VOLUMES, {"metadata": {"name": "pv1"}, "spec": local})
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "mine"}}]
    mount = {"name": "d", "mountPath": "/d", "subPathExpr": "$(POD)/deep"}
    env = [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    made = pod(
        "claim",
        "echo kept > /d/file",
        spec={"volumes": volumes, "restartPolicy": "Never"},
        container={"volumeMounts": [mount], "env": env},
    )
    node.api.put(PODS, made)
    await node.phase("claim", "Succeeded")
    assert (tmp_path / "disk" / "claim" / "deep" / "file").read_text() == "kept\n"
    nfs = [{"name": "n", "nfs": {"server": "s", "path": "/"}}]
    node.api.put(PODS, pod("nfs", spec={"volumes": nfs}))
    await node.api.until(lambda: node.api.events("FailedMount"))
    (event,) = node.api.events("FailedMount")
    assert event["message"] == (
        'MountVolume.SetUp failed for volume "n" : Pinnace does not support volumes of type nfs'
    )


async def test_a_sub_path_cannot_leave_its_volume(node: Node, tmp_path: Path) -> None:
    (tmp_path / "escape").symlink_to("/etc")
    volumes = [{"name": "h", "hostPath": {"path": str(tmp_path)}}]
    mount = {"name": "h", "mountPath": "/h", "subPath": "escape"}
    node.api.put(PODS, pod("esc", spec={"volumes": volumes}, container={"volumeMounts": [mount]}))

    def waiting() -> str:
        state = node.status("esc")["containerStatuses"][0]["state"]
        return str(state["waiting"].get("message", ""))

    await node.api.until(lambda: "is not within the volume" in waiting())


async def test_an_ephemeral_container_joins_a_running_pod(node: Node) -> None:
    node.api.put(PODS, pod("dbg"))
    await node.ready("dbg")
    wanted = node.api.pod("dbg")
    debug = {
        "name": "debugger",
        "image": BUSYBOX,
        "targetContainerName": "c",
        "command": ["sh", "-c", "ps | grep -v grep | grep -c 'sleep 0.1'; sleep 60"],
    }
    wanted["spec"]["ephemeralContainers"] = [debug]
    node.api.put(PODS, wanted)
    await node.api.until(
        lambda: node.status("dbg")["ephemeralContainerStatuses"][0]["state"].get("running")
    )
    await until(lambda: node.log("dbg", "debugger") != "")
    assert node.status("dbg")["containerStatuses"][0]["restartCount"] == 0


async def test_logs_have_the_names_that_shippers_look_for(node: Node) -> None:
    node.api.put(PODS, pod("named", "echo shipped; sleep 60"))
    status = await node.ready("named")
    id_ = status["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    link = node.config.logs.parent / "containers" / f"named_default_c-{id_}.log"
    await until(lambda: "shipped" in link.read_text())
    node.api.ask_to_delete("named", 0)
    await node.idle()
    assert not link.is_symlink()


async def test_trust_bundles_are_shown_and_followed(node: Node) -> None:
    def text(word: bytes) -> str:
        body = base64.b64encode(word).decode()
        return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"

    node.api.put(TRUST_BUNDLES, {"metadata": {"name": "ca"}, "spec": {"trustBundle": text(b"a")}})
    source = {"clusterTrustBundle": {"name": "ca", "path": "ca.crt"}}
    volumes = [{"name": "t", "projected": {"sources": [source]}}]
    mount = {"volumeMounts": [{"name": "t", "mountPath": "/t"}]}
    loop = "until grep -q YmI= /t/ca.crt; do sleep 0.05; done"
    spec = {"volumes": volumes, "restartPolicy": "Never"}
    node.api.put(PODS, pod("trust", loop, spec=spec, container=mount))
    await node.ready("trust")
    node.api.put(TRUST_BUNDLES, {"metadata": {"name": "ca"}, "spec": {"trustBundle": text(b"bb")}})
    await node.phase("trust", "Succeeded", 5)
