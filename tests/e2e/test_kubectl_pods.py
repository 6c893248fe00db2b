"""kubectl and running pods: run, logs, exec, cp, attach, port-forward, debug, describe, wait."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Space
from tests.e2e.node import Node, find_kubectl

BUSYBOX = "docker.io/library/busybox:1.35"
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: shell, labels: {app: shell}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: "BUSYBOX", command: [sh, -c, "echo main; sleep 3600"]}
  - {name: side, image: "BUSYBOX", command: [sh, -c, "echo side; sleep 3600"]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers: [{name: web, image: "pinnace.dev/hello:1", ports: [{containerPort: 8080}]}]
""".replace("BUSYBOX", BUSYBOX)

ECHO = f"""
apiVersion: v1
kind: Pod
metadata: {{name: echo}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: echo
    image: {BUSYBOX}
    stdin: true
    command: [sh, -c, 'while read x; do echo "got $x"; done']
"""

# The size comes after the start of the process, as with every kubelet.
ASK = "tty; until stty size 2>/dev/null | grep -q 33; do :; done; stty size"


@pytest.fixture(scope="module")
def pods(node: Node) -> Iterator[Space]:
    """A pod of two containers with a shell, and a small web server."""
    node.kubectl("create", "namespace", "running")
    space = Space(node, "running")
    space.until(lambda: space.run("get", "sa", "default", check=False).returncode == 0)
    space.apply(PODS)
    space.wait("pod/shell", "pod/web", "--for=condition=Ready")
    yield space
    node.kubectl("delete", "namespace", "running", "--wait=false")


def test_run_makes_a_pod_shows_what_it_says_and_removes_it(space: Space) -> None:
    once = ("run", "once", f"--image={BUSYBOX}", "--restart=Never", "--rm", "-i", "--quiet")
    assert space.kubectl(*once, "--", "cat", input="through\n") == "through\n"
    assert "NotFound" in space.refused("get", "pod", "once")


def test_run_ends_with_the_exit_code_of_the_container(space: Space) -> None:
    once = ("run", "once", f"--image={BUSYBOX}", "--restart=Never", "--rm", "-i", "--quiet")
    said = space.refused(*once, "--", "sh", "-c", "read x; exit 5", input="x\n", code=5)
    assert said.endswith("pod running/once terminated (Error)".replace("running", space.name))


def test_logs_are_shown_of_each_container_and_by_label(pods: Space) -> None:
    assert pods.kubectl("logs", "shell", "-c", "side") == "side\n"
    default = pods.run("logs", "shell")
    assert default.stdout == "main\n"
    assert default.stderr == 'Defaulted container "main" out of: main, side\n'
    everything = pods.kubectl("logs", "-l", "app=shell", "--all-containers", "--prefix")
    assert sorted(everything.splitlines()) == ["[pod/shell/main] main", "[pod/shell/side] side"]
    assert pods.refused("logs", "shell", "-c", "ghost") == (
        "error: container ghost is not valid for pod shell"
    )


def test_logs_are_limited_by_lines_bytes_and_age(space: Space) -> None:
    counting = "for i in 1 2 3 4; do echo line $i; done; sleep 3600"
    space.kubectl("run", "count", f"--image={BUSYBOX}", "--", "sh", "-c", counting)
    space.wait("pod/count", "--for=condition=Ready")
    space.until(lambda: "line 4" in space.kubectl("logs", "count"))
    assert space.kubectl("logs", "count", "--tail=2") == "line 3\nline 4\n"
    assert space.kubectl("logs", "count", "--limit-bytes=7") == "line 1\n"
    assert space.kubectl("logs", "count", "--since=1h").count("\n") == 4
    assert space.kubectl("logs", "count", "--since-time=2999-01-01T00:00:00Z") == ""
    stamped = space.kubectl("logs", "count", "--timestamps", "--tail=1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line 4\n", stamped)
    space.kubectl("delete", "pod", "count", "--now", "--wait=false")


def test_logs_follow_until_the_container_ends(space: Space) -> None:
    waiting = "echo first; until test -e /tmp/go; do sleep 0.1; done; echo last"
    flags = (f"--image={BUSYBOX}", "--restart=Never")
    space.kubectl("run", "tail", *flags, "--", "sh", "-c", waiting)
    space.wait("pod/tail", "--for=condition=Ready")
    with space.background("logs", "tail", "--follow") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "first\n"
        space.kubectl("exec", "tail", "--", "touch", "/tmp/go")
        assert following.stdout.readline() == "last\n"
        assert following.wait(timeout=20) == 0


def test_logs_of_the_container_before_are_kept(space: Space) -> None:
    script = "echo life; sleep 0.2; exit 1"
    space.kubectl("run", "crash", f"--image={BUSYBOX}", "--", "sh", "-c", script)
    assert "previous terminated container" in space.refused("logs", "crash", "--previous")
    restarts = "{.status.containerStatuses[0].restartCount}"
    space.until(lambda: space.value("pod", "crash", path=restarts) not in ("", "0"))
    assert space.kubectl("logs", "crash", "--previous") == "life\n"
    space.until(lambda: "CrashLoopBackOff" in space.kubectl("get", "pod", "crash"))
    told = "Back-off restarting failed container crash in pod crash_"
    warnings = ("events", "--for=pod/crash", "--types=Warning")
    space.until(lambda: told in space.kubectl(*warnings))
    space.kubectl("delete", "pod", "crash", "--now", "--wait=false")


def test_exec_passes_streams_and_the_exit_code(pods: Space) -> None:
    shell = ("exec", "shell", "-c", "main", "--", "sh", "-c")
    done = pods.run(*shell, "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.returncode) == ("out\n", 7)
    assert done.stderr == "err\ncommand terminated with exit code 7\n"
    piped = ("exec", "-i", "shell", "-c", "main", "--", "wc", "-c")
    assert pods.kubectl(*piped, input="x" * 300_000).strip() == "300000"
    assert pods.kubectl("exec", "shell", "--quiet", "--", "hostname") == "shell\n"


def test_exec_says_why_it_cannot(pods: Space) -> None:
    assert "executable file not found" in pods.refused("exec", "web", "--", "ghost")
    assert pods.refused("exec", "shell", "-c", "ghost", "--", "ls") == (
        "Error from server (BadRequest): container ghost is not valid for pod shell"
    )
    assert pods.refused("exec", "ghost", "--", "ls") == (
        'Error from server (NotFound): pods "ghost" not found'
    )


@pytest.mark.skipif(shutil.which("script") is None, reason="script(1) makes the terminal")
def test_exec_gives_a_terminal_of_the_right_size(pods: Space) -> None:
    kubectl = " ".join((*pods.node.namespace.enter, find_kubectl()))
    command = f"{kubectl} -n running exec -it shell -c main -- sh -c '{ASK}'"
    environment = {"KUBECONFIG": str(pods.node.kubeconfig), "HOME": str(pods.node.folder)}
    done = pods.node.namespace.exec(
        "script", "-qec", f"stty rows 33 cols 99; {command}", "/dev/null",
        env=environment | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    assert "/dev/pts/" in done.stdout
    assert "33 99" in done.stdout


def test_files_are_copied_both_ways(pods: Space, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "below").mkdir(parents=True)
    (source / "below" / "one").write_bytes(bytes(range(256)) * 1000)
    pods.kubectl("cp", str(source), "shell:/tmp/tree", "-c", "main")
    pods.kubectl("cp", "shell:tmp/tree", str(tmp_path / "back"), "-c", "main")
    assert (tmp_path / "back" / "below" / "one").read_bytes() == bytes(range(256)) * 1000


def test_attach_joins_what_runs(space: Space) -> None:
    space.apply(ECHO)
    space.wait("pod/echo", "--for=condition=Ready")
    with space.background("attach", "-i", "echo", stdin=subprocess.PIPE) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write("one\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == "got one\n"


def test_a_port_is_forwarded(pods: Space) -> None:
    with pods.background("port-forward", "pod/web", ":8080") as forwarding:
        assert forwarding.stdout is not None
        line = forwarding.stdout.readline()
        found = re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> 8080\n", line)
        assert found, line
        for _ in range(3):
            assert "Hello from Pinnace." in pods.node.http(f"http://127.0.0.1:{found[1]}/")


def test_a_pod_is_reached_through_the_proxy_of_the_server(pods: Space) -> None:
    path = "/api/v1/namespaces/running/pods/web:8080/proxy/"
    assert pods.kubectl("get", "--raw", path) == "Hello from Pinnace.\n"


def test_kubectl_proxy_passes_requests_on(pods: Space) -> None:
    with pods.background("proxy", "--port=0") as proxy:
        assert proxy.stdout is not None
        address = proxy.stdout.readline().split()[-1]
        assert '"gitVersion"' in pods.node.http(f"http://{address}/version")


def test_a_debug_container_joins_a_running_pod(pods: Space) -> None:
    flags = ("--profile=general", f"--image={BUSYBOX}", "--container=probe", "--target=web")
    pods.kubectl("debug", "web", *flags, "--", "sleep", "3600")
    running = "{.status.ephemeralContainerStatuses[0].state.running.startedAt}"
    pods.until(lambda: pods.value("pod", "web", path=running))
    assert "httpd" in pods.kubectl("exec", "web", "-c", "probe", "--", "ps")
    assert "Ephemeral Containers:\n  probe:\n" in pods.kubectl("describe", "pod", "web")


def test_a_copy_of_a_pod_is_made_for_debugging(space: Space) -> None:
    space.kubectl("run", "web", "--image=pinnace.dev/hello:1")
    flags = ("--profile=general", "--copy-to=copy", "--container=web", f"--image={BUSYBOX}")
    space.kubectl("debug", "web", *flags, "--", "true")
    assert space.value("pod", "copy", path="{.spec.containers[0].image}") == BUSYBOX


def test_describe_tells_the_story_of_a_pod(pods: Space) -> None:
    shown = pods.kubectl("describe", "pod", "shell")
    assert re.search(r"^Status: +Running$", shown, re.MULTILINE)
    assert re.search(r"^QoS Class: +BestEffort$", shown, re.MULTILINE)
    events = shown[shown.index("Events:") :]
    assert "Successfully assigned running/shell to pi" in events
    assert f'Container image "{BUSYBOX}" already present on machine' in events
    for reason in ("Scheduled", "Pulled", "Created", "Started"):
        assert re.search(rf"^  Normal  {reason} ", events, re.MULTILINE), reason


def test_an_image_that_is_not_there_is_told_by_status_and_events(space: Space) -> None:
    space.kubectl("run", "lost", "--image=127.0.0.1:9/none:1")
    shown = space.until(
        lambda: (
            (said := space.kubectl("get", "pod", "lost", "--no-headers").split()[2])
            in ("ErrImagePull", "ImagePullBackOff")
            and said
        )
    )
    assert shown
    space.until(lambda: "Failed to pull image" in space.kubectl("describe", "pod", "lost"))


def test_events_are_shown_and_watched(space: Space) -> None:
    with space.background("events", "--watch") as watching:
        space.kubectl("run", "web", "--image=pinnace.dev/hello:1")
        assert watching.stdout is not None
        assert watching.stdout.readline().split()[:2] == ["LAST", "SEEN"]
        assert re.search(r"Scheduled +Pod/web", watching.stdout.readline())
    space.wait("pod/web", "--for=condition=Ready")
    shown = space.kubectl("events", "--for=pod/web", "-o", "jsonpath={.items[*].reason}").split()
    assert sorted(shown) == ["Created", "Pulled", "Scheduled", "Started"]


def test_waiting_gives_up_in_time(pods: Space) -> None:
    waiting = ("wait", "pod/web", "--for=condition=Ghost", "--timeout=1s")
    began = time.monotonic()
    refusal = pods.refused(*waiting)
    assert refusal.endswith("error: timed out waiting for the condition on pods/web")
    assert time.monotonic() - began < 5
    pods.kubectl("wait", "pods", "--all", "--for=jsonpath={.status.phase}=Running")


def test_a_pod_is_deleted_within_its_grace(space: Space) -> None:
    stubborn = "trap '' TERM; while :; do sleep 1; done"
    space.kubectl("run", "stubborn", f"--image={BUSYBOX}", "--", "sh", "-c", stubborn)
    space.wait("pod/stubborn", "--for=condition=Ready")
    began = time.monotonic()
    space.kubectl("delete", "pod", "stubborn", "--grace-period=2", "--timeout=20s")
    assert 1.5 < time.monotonic() - began < 10
    space.kubectl("run", "polite", "--image=pinnace.dev/hello:1")
    space.wait("pod/polite", "--for=condition=Ready")
    forced = space.run("delete", "pod", "polite", "--force", "--grace-period=0")
    assert forced.stderr.startswith("Warning: Immediate deletion does not wait")
