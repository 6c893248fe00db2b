"""kubectl makes, marks, scales and deletes objects of many kinds."""

import base64
import json

from tests.e2e.conftest import Space

MADE = (
    ("configmap one --from-literal=a=b", "configmap/one created"),
    ("secret generic one --from-literal=a=b", "secret/one created"),
    (
        "secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p",
        "secret/pull created",
    ),
    ("deployment one --image=pinnace.dev/hello:1 --replicas=0", "deployment.apps/one created"),
    ("serviceaccount one", "serviceaccount/one created"),
    ("role one --verb=get,list --resource=pods", "role.rbac.authorization.k8s.io/one created"),
    (
        "rolebinding one --role=one --serviceaccount=default:one",
        "rolebinding.rbac.authorization.k8s.io/one created",
    ),
    ("service clusterip one --tcp=80:8080", "service/one created"),
    ("service nodeport two --tcp=80", "service/two created"),
    ("service externalname three --external-name=a.example", "service/three created"),
    ("service clusterip four --clusterip=None", "service/four created"),
    ("quota one --hard=configmaps=50,count/jobs.batch=9", "resourcequota/one created"),
    (
        "poddisruptionbudget one --selector=a=b --min-available=1",
        "poddisruptionbudget.policy/one created",
    ),
    ("ingress one --rule=a.example/*=one:80", "ingress.networking.k8s.io/one created"),
    ("cronjob one --image=x --schedule=0_0_1_1_*", "cronjob.batch/one created"),
)


def test_many_kinds_are_created_by_a_command(space: Space) -> None:
    for command, said in MADE:
        words = [word.replace("_", " ") for word in command.split()]
        assert space.kubectl("create", *words) == f"{said}\n"
    again = space.refused("create", "configmap", "one")
    assert again == ('error: failed to create configmap: configmaps "one" already exists')


def test_a_secret_is_kept_in_base64_and_described_by_its_sizes(space: Space) -> None:
    space.kubectl("create", "secret", "generic", "one", "--from-literal=key=value")
    assert base64.b64decode(space.value("secret", "one", path="{.data.key}")) == b"value"
    described = space.kubectl("describe", "secret", "one")
    assert "key:  5 bytes" in described
    assert "value" not in described


def test_services_get_addresses_of_their_kind(space: Space) -> None:
    space.kubectl("create", "service", "nodeport", "one", "--tcp=80:8080")
    service = space.get("service", "one")
    assert service["spec"]["clusterIP"].startswith("10.43.")
    assert 30000 <= service["spec"]["ports"][0]["nodePort"] <= 32767
    space.kubectl("create", "service", "clusterip", "two", "--clusterip=None")
    shown = space.kubectl("get", "service", "two", "--no-headers").split()
    assert shown[:5] == ["two", "ClusterIP", "None", "<none>", "<none>"]


def test_labels_and_annotations_are_set_refused_and_removed(space: Space) -> None:
    space.kubectl("create", "configmap", "one")
    assert space.kubectl("label", "cm", "one", "a=b") == "configmap/one labeled\n"
    assert space.refused("label", "cm", "one", "a=c") == (
        "error: 'a' already has a value (b), and --overwrite is false"
    )
    assert space.kubectl("label", "cm", "one", "a=c", "--overwrite") == "configmap/one labeled\n"
    assert space.kubectl("label", "cm", "one", "a-") == "configmap/one unlabeled\n"
    assert space.kubectl("annotate", "cm", "one", "n=x y") == "configmap/one annotated\n"
    assert space.get("cm", "one")["metadata"]["annotations"] == {"n": "x y"}
    assert "labels" not in space.get("cm", "one")["metadata"]


def test_scaling_honours_the_expected_size(space: Space) -> None:
    space.kubectl("create", "deployment", "one", "--image=pinnace.dev/hello:1", "--replicas=0")
    assert space.refused("scale", "deploy/one", "--replicas=3", "--current-replicas=2") == (
        "error: Expected replicas to be 2, was 0"
    )
    scaled = space.kubectl("scale", "deploy/one", "--replicas=1", "--current-replicas=0")
    assert scaled == "deployment.apps/one scaled\n"
    space.wait("deploy/one", "--for=condition=Available")
    space.wait("deploy/one", "--for=jsonpath={.status.readyReplicas}=1")


def test_an_autoscaler_is_made_from_a_deployment(space: Space) -> None:
    space.kubectl("create", "deployment", "one", "--image=pinnace.dev/hello:1", "--replicas=0")
    space.kubectl("autoscale", "deploy", "one", "--min=1", "--max=3", "--cpu-percent=50")
    shown = space.kubectl("get", "hpa", "--no-headers").split()
    assert shown[:2] == ["one", "Deployment/one"]
    spec = space.get("hpa", "one")["spec"]
    assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 50


def test_a_deployment_is_exposed(space: Space) -> None:
    space.kubectl("create", "deployment", "one", "--image=pinnace.dev/hello:1", "--port=8080")
    assert space.kubectl("expose", "deploy/one", "--port=80") == "service/one exposed\n"
    spec = space.get("service", "one")["spec"]
    assert (spec["selector"], spec["ports"][0]["targetPort"]) == ({"app": "one"}, 80)


def test_images_environment_and_resources_are_set(space: Space) -> None:
    space.kubectl("create", "deployment", "one", "--image=pinnace.dev/hello:1", "--replicas=0")
    assert space.kubectl("set", "image", "deploy/one", "hello=pinnace.dev/hello:2") == (
        "deployment.apps/one image updated\n"
    )
    space.kubectl("set", "env", "deploy/one", "A=b")
    space.kubectl("set", "resources", "deploy/one", "--requests=cpu=10m", "--limits=memory=64Mi")
    space.kubectl("create", "serviceaccount", "robot")
    space.kubectl("set", "serviceaccount", "deploy/one", "robot")
    pod = space.get("deploy", "one")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["image"] == "pinnace.dev/hello:2"
    assert container["env"] == [{"name": "A", "value": "b"}]
    assert container["resources"] == {"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}}
    assert pod["serviceAccountName"] == "robot"
    assert space.kubectl("set", "env", "deploy/one", "--list").splitlines() == [
        "# Deployment one, container hello",
        "A=b",
    ]


def test_deleting_waits_for_finalizers(space: Space) -> None:
    space.kubectl("create", "configmap", "held")
    space.kubectl("patch", "cm", "held", "-p", '{"metadata": {"finalizers": ["a.example/held"]}}')
    refusal = space.refused("delete", "cm", "held", "--timeout=1s")
    assert refusal.endswith("error: timed out waiting for the condition on configmaps/held")
    assert space.value("cm", "held", path="{.metadata.deletionTimestamp}")
    with space.background("wait", "cm/held", "--for=delete", "--timeout=20s") as waiting:
        space.kubectl("patch", "cm", "held", "-p", '{"metadata": {"finalizers": null}}')
        assert waiting.wait(timeout=20) == 0
    assert "NotFound" in space.refused("get", "cm", "held")


def test_dependents_go_with_their_owner_unless_orphaned(space: Space) -> None:
    for name in ("one", "two"):
        space.kubectl("create", "deployment", name, "--image=pinnace.dev/hello:1", "--replicas=0")
    space.until(lambda: len(space.get("rs")["items"]) == 2)
    space.kubectl("delete", "deploy", "one", "--cascade=orphan")
    space.kubectl("delete", "deploy", "two", "--cascade=foreground")
    left = space.get("rs")["items"]
    assert [item["metadata"]["labels"]["app"] for item in left] == ["one"]
    assert "ownerReferences" not in left[0]["metadata"]


def test_deletion_by_label_and_of_everything(space: Space) -> None:
    for name in ("one", "two", "three"):
        space.kubectl("create", "configmap", name)
    space.kubectl("label", "cm", "one", "two", "gone=yes")
    said = space.kubectl("delete", "cm", "-l", "gone=yes").splitlines()
    assert said == ['configmap "one" deleted', 'configmap "two" deleted']
    space.kubectl("delete", "cm", "--all")
    names = space.kubectl("get", "cm", "-o", "name").split()
    assert "configmap/three" not in names
    assert space.kubectl("delete", "cm", "ghost", "--ignore-not-found") == ""


def test_a_namespace_takes_its_objects_along(space: Space) -> None:
    space.node.kubectl("create", "namespace", "short-lived")
    space.node.kubectl("create", "configmap", "one", "-n", "short-lived")
    space.node.kubectl("delete", "namespace", "short-lived", "--timeout=20s")
    assert "NotFound" in space.refused("get", "namespace", "short-lived")
    assert space.node.kubectl("get", "cm", "-n", "short-lived", "-o", "name").stdout == ""


def test_a_role_lets_a_service_account_do_what_it_says(space: Space) -> None:
    robot = f"--as=system:serviceaccount:{space.name}:robot"
    space.kubectl("create", "serviceaccount", "robot")
    assert space.run("auth", "can-i", "list", "pods", robot, check=False).stdout == "no\n"
    space.kubectl("create", "role", "reader", "--verb=list", "--resource=pods")
    account = f"--serviceaccount={space.name}:robot"
    space.kubectl("create", "rolebinding", "reader", "--role=reader", account)
    assert space.kubectl("auth", "can-i", "list", "pods", robot) == "yes\n"
    assert space.run("auth", "can-i", "delete", "pods", robot, check=False).returncode == 1
    listed = space.kubectl("auth", "can-i", "--list", robot)
    assert ["pods", "[]", "[]", "[list]"] in [line.split() for line in listed.splitlines()]
    assert space.run("get", "pods", robot).stderr.startswith("No resources found")


def test_a_token_of_a_service_account_logs_in(space: Space) -> None:
    token = space.kubectl("create", "token", "default", "--duration=20m").strip()
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    user = f"system:serviceaccount:{space.name}:default"
    assert claims["sub"] == user
    assert claims["exp"] - claims["iat"] == 1200
    asked = as_token(space, token, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    assert asked == user
    assert "Unauthorized" in as_token(space, token[:-8] + "AAAAAAAA", "auth", "whoami")


def as_token(space: Space, token: str, *arguments: str) -> str:
    """With the token alone: a kubeconfig without the administrator's certificate."""
    config = json.loads(space.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    file = space.node.folder / "token.kubeconfig"
    file.write_text(json.dumps(config))
    done = space.run(f"--kubeconfig={file}", *arguments, check=False)
    return done.stdout + done.stderr


def test_the_administrator_is_who_the_certificate_says(space: Space) -> None:
    assert json.loads(space.kubectl("auth", "whoami", "-o", "json"))["status"]["userInfo"][
        "groups"
    ] == ["system:masters", "system:authenticated"]
    assert space.kubectl("auth", "can-i", "*", "*") == "yes\n"
