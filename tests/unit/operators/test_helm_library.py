"""The worker with the real library; nothing here reaches a cluster or a network."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import pack
from operators.config import Config
from operators.helm.base import HelmError, Job, Source, Target
from operators.helm.library import Library
from operators.helm.process import Runner
from tests.fakes.operators_config import config as told

ROOT = Path(__file__).parent.parent.parent.parent
HELLO = Source(content=base64.b64encode(pack(ROOT / "charts" / "hello")).decode())
JOB = Job(target=Target(name="web", namespace="default", timeout=20), source=HELLO)
CONFIG = told(
    kubeconfig=Path("/nonexistent/kubeconfig"),
    kubernetes_api="127.0.0.1:1",
    python=sys.executable,
    program_dir=ROOT,
    path="/usr/bin:/bin",
)


def library(config: Config = CONFIG) -> Library:
    return Library(config, Runner({"PATH": config.path, "PYTHONPATH": str(config.program_dir)}))


async def rendered(job: Job) -> dict[str, Any]:
    text = await library().template(job)
    return {document["kind"]: document for document in yaml.safe_load_all(text) if document}


async def test_the_chart_renders_what_its_values_say() -> None:
    objects = await rendered(replace(JOB, values=("message: one", "replicaCount: 3")))
    assert "<h1>one</h1>" in objects["ConfigMap"]["data"]["index.html"]
    assert objects["Deployment"]["spec"]["replicas"] == 3
    [container] = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "pinnace.dev/hello:1"
    assert container["volumeMounts"][0]["mountPath"] == "/www"
    assert objects["Service"]["spec"]["type"] == "LoadBalancer"
    assert objects["Service"]["metadata"]["name"] == "web-hello"


async def test_another_message_replaces_the_pods() -> None:
    async def checksum(message: str) -> str:
        objects = await rendered(replace(JOB, values=(f"message: {message}",)))
        metadata = objects["Deployment"]["spec"]["template"]["metadata"]
        return str(metadata["annotations"]["checksum/page"])

    assert await checksum("one") != await checksum("two")


async def test_set_goes_over_values() -> None:
    job = replace(
        JOB,
        values=("message: low\nreplicaCount: 2",),
        set=(("replicaCount", "4"),),
        set_string=(("message", r"a\,b"),),
    )
    objects = await rendered(job)
    assert objects["Deployment"]["spec"]["replicas"] == 4
    assert "<h1>a,b</h1>" in objects["ConfigMap"]["data"]["index.html"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": Source(content="bm8gY2hhcnQ=")}, "ChartLoadError"),
        ({"source": Source(content="a")}, "ChartLoadError"),
        ({"values": ("a: [",)}, "ValuesError"),
        ({"set": (("a[", "1"),)}, "ValuesError"),
    ],
)
async def test_what_will_never_work_is_a_permanent_error(
    change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(HelmError) as failed:
        await library().template(replace(JOB, **change))
    assert failed.value.permanent
    assert failed.value.reason == reason


async def test_a_repository_that_is_away_is_worth_another_attempt() -> None:
    source = Source(repo="http://127.0.0.1:1", chart="web")
    with pytest.raises(HelmError) as failed:
        await library().template(replace(JOB, source=source))
    assert not failed.value.permanent
    assert failed.value.reason == "RepoError"


async def test_a_worker_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho out of memory >&2\nkill -9 $$\n")
    python.chmod(0o755)
    with pytest.raises(HelmError, match="killed by signal 9: out of memory"):
        await library(replace(CONFIG, python=str(python))).template(JOB)


def test_a_worker_whose_operators_are_gone_does_nothing() -> None:
    argv = [sys.executable, "-m", "operators.helm.worker"]
    other = str(os.getppid())
    ended = subprocess.run([*argv, other], input="", capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "ended before Helm began" in ended.stderr


def test_a_worker_that_hangs_is_killed_and_leaves_nothing(tmp_path: Path) -> None:
    seen = tmp_path / "home"
    runner = Runner({"PATH": "/usr/bin:/bin"})
    with pytest.raises(HelmError) as failed:
        asyncio.run(runner.run(["sh", "-c", f"pwd > {seen}; sleep 60 & wait"], seconds=0.5))
    assert failed.value.reason == "TimedOut"
    assert not Path(seen.read_text().strip()).exists()


async def test_files_are_for_the_program_alone() -> None:
    runner = Runner({"PATH": "/usr/bin:/bin"})
    code, out, _ = await runner.run(
        ["sh", "-c", "stat -c %a key; cat key; env | cut -d= -f1 | sort"],
        seconds=10,
        files={"key": b"secret\n"},
    )
    assert code == 0
    mode, content, *names = out.split()
    assert (mode, content) == ("600", "secret")
    assert "USER" not in names
    assert "HELM_CACHE_HOME" in names


def test_a_request_can_be_written_down() -> None:
    from dataclasses import asdict

    assert json.loads(json.dumps(asdict(JOB)))["target"]["name"] == "web"
