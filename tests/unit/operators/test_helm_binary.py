import json
import os
import select
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from operators.helm.base import HelmError, Job, Release, Source, Target
from operators.helm.binary import Binary, chart_arguments
from operators.helm.process import Runner
from tests.fakes.operators_config import config as told

ROOT = Path(__file__).parent.parent.parent.parent
TARGET = Target(name="web", namespace="apps", driver="configmap", timeout=60)
JOB = Job(
    target=TARGET,
    source=Source(content="dGd6"),
    values=("a: 1", "b: 2"),
    set=(("c", "3"),),
    set_string=(("d", r"4\,5"),),
    labels=(("x", "y"),),
    create_namespace=True,
    take_ownership=True,
    server_side="true",
    force_conflicts=True,
)
CONFIG = told(
    kubeconfig=Path("/k"),
    kubernetes_api="",
    python="",
    program_dir=Path("/"),
    path="/usr/bin:/bin",
)
RELEASE = {
    "name": "web",
    "namespace": "apps",
    "version": 2,
    "info": {"status": "deployed"},
    "chart": {"metadata": {"name": "hello", "version": "0.1.0", "appVersion": "1"}},
}


def helm(tmp_path: Path, script: str) -> Binary:
    """A program that writes down how it was called, then does as ``script`` says."""
    program = tmp_path / "helm"
    program.write_text(
        "#!/bin/sh\n"
        f'printf "%s\\n" "$HELM_DRIVER" "$@" > {tmp_path}/called\n'
        f"cat *.yaml *.tgz > {tmp_path}/files 2>/dev/null\n"
        f"{script}\n"
    )
    program.chmod(0o755)
    return Binary(CONFIG, Runner({"PATH": CONFIG.path}), str(program))


def answering(tmp_path: Path, answer: object) -> Binary:
    (tmp_path / "answer").write_text(json.dumps(answer))
    return helm(tmp_path, f"cat {tmp_path}/answer")


def called(tmp_path: Path) -> list[str]:
    return (tmp_path / "called").read_text().splitlines()


async def test_an_install_names_everything_in_its_arguments(tmp_path: Path) -> None:
    release = await answering(tmp_path, RELEASE).install(JOB)
    assert release == Release(
        name="web",
        namespace="apps",
        revision=2,
        status="deployed",
        chart="hello-0.1.0",
        app_version="1",
    )
    assert called(tmp_path) == [
        "configmap",
        "install",
        "web",
        "chart.tgz",
        "--values=values-000.yaml",
        "--values=values-001.yaml",
        "--set=c=3",
        r"--set-string=d=4\,5",
        "--timeout=60s",
        "--output=json",
        "--replace",
        "--create-namespace",
        "--labels=x=y",
        "--take-ownership",
        "--server-side=true",
        "--force-conflicts",
        "--kubeconfig=/k",
        "--namespace=apps",
    ]
    assert (tmp_path / "files").read_text() == "a: 1b: 2tgz"


async def test_an_upgrade_keeps_ten_revisions(tmp_path: Path) -> None:
    plain = Job(target=TARGET, source=JOB.source)
    await answering(tmp_path, RELEASE).upgrade(plain)
    assert called(tmp_path)[1:] == [
        "upgrade",
        "web",
        "chart.tgz",
        "--timeout=60s",
        "--output=json",
        "--history-max=10",
        "--reset-values",
        "--kubeconfig=/k",
        "--namespace=apps",
    ]


async def test_what_shall_be_ready_is_waited_for(tmp_path: Path) -> None:
    await answering(tmp_path, RELEASE).upgrade(Job(target=TARGET, source=JOB.source, wait=True))
    assert "--wait" in called(tmp_path)


@pytest.mark.parametrize(
    ("server_side", "force", "more"),
    [
        ("auto", False, []),
        ("auto", True, ["--force-conflicts"]),
        ("true", False, ["--server-side=true"]),
        ("false", True, ["--server-side=false"]),
    ],
)
async def test_a_rollback_names_the_revision(
    tmp_path: Path, server_side: str, force: bool, more: list[str]
) -> None:
    await helm(tmp_path, "exit 0").rollback(
        TARGET, 3, server_side=server_side, force_conflicts=force
    )
    assert called(tmp_path)[:6] == [
        "configmap",
        "rollback",
        "web",
        "3",
        "--timeout=60s",
        "--history-max=10",
    ]
    assert called(tmp_path)[6:-2] == more


async def test_an_uninstall_waits_and_forgives(tmp_path: Path) -> None:
    await helm(tmp_path, "exit 0").uninstall(TARGET)
    assert {"uninstall", "--wait", "--ignore-not-found"} <= set(called(tmp_path))


async def test_a_release_that_is_not_there_has_no_history(tmp_path: Path) -> None:
    missing = helm(tmp_path, "echo 'Error: release: not found' >&2; exit 1")
    assert await missing.history(TARGET) == []
    assert await missing.status(TARGET) is None


async def test_history_is_read(tmp_path: Path) -> None:
    entry = {"revision": 3, "status": "failed", "chart": "hello-0.1.0", "app_version": "1"}
    [found] = await answering(tmp_path, [entry]).history(TARGET)
    assert (found.revision, found.status) == (3, "failed")


@pytest.mark.parametrize(
    ("words", "permanent"),
    [
        ("Error: cannot reach the cluster", False),
        ("Error: parse error at (x)", True),
        ("Error: data: Too long: may not be more than 1048576 bytes", True),
    ],
)
async def test_errors_are_told_by_their_words(tmp_path: Path, words: str, permanent: bool) -> None:
    with pytest.raises(HelmError, match=words.replace("(", r"\(").replace(")", r"\)")) as failed:
        await helm(tmp_path, f"echo '{words}' >&2; exit 1").install(JOB)
    assert failed.value.permanent is permanent


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    binary = Binary(CONFIG, Runner({"PATH": CONFIG.path}), str(tmp_path / "absent"))
    with pytest.raises(HelmError, match="absent"):
        await binary.install(JOB)


def test_a_repository_comes_with_its_credentials() -> None:
    source = Source(
        chart="web", repo="https://r", version="1.x", ca="C", username="u", password="p"
    )
    assert chart_arguments(replace(source, insecure=True)) == [
        "web",
        "--repo=https://r",
        "--version=1.x",
        "--ca-file=ca.pem",
        "--username=u",
        "--password=p",
        "--insecure-skip-tls-verify",
    ]


def test_a_program_of_dead_operators_ends_with_them(tmp_path: Path) -> None:
    if not shutil.which("setpriv", path=CONFIG.path):
        pytest.skip("setpriv of util-linux is not here")
    waiting = tmp_path / "waiting"
    os.mkfifo(waiting)
    helm(tmp_path, f"echo $$ > {waiting}; exec tail -f /dev/null")
    script = (
        "import asyncio, sys; from pathlib import Path; "
        "from operators.helm.binary import Binary; from operators.helm.process import Runner; "
        "from operators.helm.base import Target; from tests.fakes.operators_config import config; "
        "told = config(path='/usr/bin:/bin'); "
        "asyncio.run(Binary(told, Runner({'PATH': told.path}), sys.argv[1]).uninstall("
        "Target(name='web', namespace='n')))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "helm")], cwd=ROOT, stderr=subprocess.DEVNULL
    ) as operators:
        program = int(waiting.read_text())
        ended = os.pidfd_open(program)
        operators.kill()
    assert select.select([ended], [], [], 10)[0]
    os.close(ended)
