"""What the kubelet relies on of a container runtime: one suite, on containerd and on the fake."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from node.cri.base import (
    ContainerConfig,
    ContainerState,
    NotFound,
    Resources,
    Runtime,
    RuntimeFailure,
    RuntimeUnavailable,
    SandboxConfig,
)
from node.cri.client import CriClient
from tests.fakes.cri import FakeCri
from tests.host.cri.containerd import BUSYBOX, Containerd

RUNTIMES = ["fake", pytest.param("containerd", marks=pytest.mark.root)]


@dataclass
class Subject:
    runtime: Runtime
    folder: Path
    cgroup: str = ""

    def sandbox_config(self, name: str = "a") -> SandboxConfig:
        return SandboxConfig(
            name=name,
            namespace="default",
            uid=f"uid-{name}",
            attempt=0,
            hostname=name,
            log_directory=str(self.folder / "logs"),
            labels={"app": name},
            cgroup_parent=f"{self.cgroup}/{name}",
        )

    async def sandbox(self, name: str = "a") -> str:
        return await self.runtime.run_sandbox(self.sandbox_config(name))

    async def container(self, sandbox: str, *command: str) -> str:
        image = await self.runtime.image(BUSYBOX)
        assert image is not None
        config = ContainerConfig(
            name="c",
            attempt=3,
            image=image.id,
            command=command,
            labels={"app": "a"},
            annotations={"note": "x"},
            log_path="c/3.log",
        )
        made = await self.runtime.create_container(sandbox, config, self.sandbox_config())
        await self.runtime.start_container(made)
        return made

    async def ended(self, container: str) -> None:
        async with asyncio.timeout(10):
            while await self._runs(container):  # noqa: ASYNC110 - events have their own test
                await asyncio.sleep(0.01)

    async def _runs(self, container: str) -> bool:
        status = await self.runtime.container_status(container)
        return status.state is ContainerState.RUNNING


@pytest_asyncio.fixture(params=RUNTIMES)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    folder = Path(tempfile.mkdtemp(prefix="cri-"))
    if request.param == "fake":
        fake = FakeCri(folder / "s", [BUSYBOX])
        await fake.start()
        client = CriClient(fake.socket)
        yield Subject(client, folder)
        await client.close()
        await fake.stop()
    else:
        real = Containerd(folder / "c")
        real.prepare()
        real.start()
        real.import_images()
        client = CriClient(real.socket)
        yield Subject(client, folder, real.cgroup)
        for sandbox in await client.sandboxes():
            await client.stop_sandbox(sandbox.id)
            await client.remove_sandbox(sandbox.id)
        await client.close()
        real.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def test_it_says_what_it_is_and_that_it_is_ready(subject: Subject) -> None:
    assert (await subject.runtime.version()).version
    status = await subject.runtime.status()
    assert (status.runtime_ready, status.network_ready, status.message) == (True, True, "")
    assert await subject.runtime.cgroup_driver() == "cgroupfs"


async def test_a_sandbox_has_an_address_until_it_is_stopped(subject: Subject) -> None:
    made = await subject.sandbox()
    status = await subject.runtime.sandbox_status(made)
    assert status.ips[0].startswith("10.42.")
    (listed,) = await subject.runtime.sandboxes({"app": "a"})
    assert (listed.id, listed.name, listed.uid, listed.ready) == (made, "a", "uid-a", True)
    await subject.runtime.stop_sandbox(made)
    await subject.runtime.stop_sandbox(made)
    (listed,) = await subject.runtime.sandboxes()
    assert listed.ready is False
    await subject.runtime.remove_sandbox(made)
    assert not await subject.runtime.sandboxes()


async def test_a_container_keeps_what_it_was_made_with(subject: Subject) -> None:
    sandbox = await subject.sandbox()
    made = await subject.container(sandbox, "sleep", "60")
    status = await subject.runtime.container_status(made)
    assert (status.name, status.attempt, status.state) == ("c", 3, ContainerState.RUNNING)
    assert status.annotations["note"] == "x"
    assert status.image == BUSYBOX
    assert status.log_path.endswith("c/3.log")
    assert status.started_at >= status.created_at > 0
    (listed,) = await subject.runtime.containers({"app": "a"})
    assert (listed.id, listed.sandbox_id) == (made, sandbox)
    assert not await subject.runtime.containers({"app": "other"})


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (3, "Error")])
async def test_the_exit_code_is_kept(subject: Subject, code: int, reason: str) -> None:
    made = await subject.container(await subject.sandbox(), "sh", "-c", f"exit {code}")
    await subject.ended(made)
    status = await subject.runtime.container_status(made)
    assert (status.state, status.exit_code, status.reason) == (
        ContainerState.EXITED,
        code,
        reason,
    )
    assert status.finished_at > 0


async def test_stopping_kills_after_the_grace_period(subject: Subject) -> None:
    made = await subject.container(await subject.sandbox(), "sleep", "60")
    await subject.runtime.stop_container(made, 0)
    status = await subject.runtime.container_status(made)
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 137)
    await subject.runtime.remove_container(made)
    with pytest.raises(NotFound):
        await subject.runtime.container_status(made)


async def test_stopping_a_sandbox_ends_its_containers(subject: Subject) -> None:
    sandbox = await subject.sandbox()
    made = await subject.container(sandbox, "sleep", "60")
    await subject.runtime.stop_sandbox(sandbox)
    assert (await subject.runtime.container_status(made)).state is ContainerState.EXITED


async def test_exec_gives_output_and_exit_code(subject: Subject) -> None:
    made = await subject.container(await subject.sandbox(), "sleep", "60")
    done = await subject.runtime.exec_sync(made, ["echo", "hello", "you"], 5)
    assert (done.stdout, done.exit_code) == (b"hello you\n", 0)
    assert (await subject.runtime.exec_sync(made, ["sh", "-c", "exit 7"], 5)).exit_code == 7


async def test_exec_that_takes_too_long_is_a_timeout(subject: Subject) -> None:
    made = await subject.container(await subject.sandbox(), "sleep", "60")
    with pytest.raises(TimeoutError):
        await subject.runtime.exec_sync(made, ["sleep", "30"], 1)


async def test_what_is_not_there_is_not_found(subject: Subject) -> None:
    with pytest.raises(NotFound):
        await subject.runtime.sandbox_status("nothing")
    with pytest.raises(NotFound):
        await subject.runtime.exec_sync("nothing", ["true"], 1)
    assert await subject.runtime.image("registry.test/nothing:1") is None
    await subject.runtime.remove_container("nothing")
    await subject.runtime.stop_sandbox("nothing")


async def test_images_are_listed_and_a_pull_of_nothing_fails(subject: Subject) -> None:
    assert any(BUSYBOX in image.tags for image in await subject.runtime.images())
    with pytest.raises(RuntimeFailure):
        await subject.runtime.pull("registry.invalid/nothing:1", None, None)


async def test_events_tell_of_the_start_and_the_end(subject: Subject) -> None:
    seen: list[tuple[str, str]] = []

    async def listen() -> None:
        async for event in subject.runtime.events():
            if (found := (event.id, event.kind)) not in seen:
                seen.append(found)

    listener = asyncio.get_running_loop().create_task(listen())
    # Nothing tells when the stream is open, and what began before that is not told of.
    async with asyncio.timeout(20):
        made = ""
        while not {(made, "started"), (made, "stopped")} <= set(seen):
            made = await subject.container(await subject.sandbox(), "sleep", "0.1")
            await subject.ended(made)
    listener.cancel()
    assert seen.index((made, "started")) < seen.index((made, "stopped"))


async def test_stats_are_of_running_containers(subject: Subject) -> None:
    made = await subject.container(await subject.sandbox(), "sleep", "60")
    (stats,) = [s for s in await subject.runtime.stats({"app": "a"}) if s.id == made]
    assert stats.timestamp > 0
    assert stats.memory_working_set > 0


async def test_resources_can_be_changed_while_it_runs(subject: Subject) -> None:
    made = await subject.container(await subject.sandbox(), "sleep", "60")
    await subject.runtime.update_resources(made, Resources(cpu_shares=512))
    await subject.runtime.reopen_log(made)


async def test_streaming_urls_are_local(subject: Subject) -> None:
    sandbox = await subject.sandbox()
    made = await subject.container(sandbox, "sleep", "60")
    url = await subject.runtime.exec_url(
        made, ["true"], stdin=False, stdout=True, stderr=True, tty=False
    )
    assert url.startswith("http://127.0.0.1:")
    assert "127.0.0.1" in await subject.runtime.port_forward_url(sandbox, [80])


async def test_nobody_on_the_socket_is_unavailable(tmp_path: Path) -> None:
    client = CriClient(tmp_path / "no.sock")
    with pytest.raises(RuntimeUnavailable):
        await client.version()
    await client.close()


END_OF_AN_EMPTY_REQUEST = b"\x00\x00\x05\x00\x01"  # HTTP/2: the head of its last frame


@contextlib.asynccontextmanager
async def silent_runtime(socket: Path) -> AsyncIterator[asyncio.Queue[asyncio.StreamWriter]]:
    """It takes requests and never answers; the connections that have sent one."""
    asked: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(END_OF_AN_EMPTY_REQUEST)
        asked.put_nowait(writer)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(take, socket)
    async with server:
        yield asked


async def _follow(client: CriClient) -> int:
    """How many requests to cancel this task are open after the stream of events was lost."""
    with pytest.raises(RuntimeUnavailable):
        async for _ in client.events():
            pass
    task = asyncio.current_task()
    return task.cancelling() if task is not None else -1


async def test_a_lost_connection_cancels_nobody(tmp_path: Path) -> None:
    client = CriClient(tmp_path / "s")
    async with silent_runtime(tmp_path / "s") as asked, asyncio.TaskGroup() as group:
        task = group.create_task(_follow(client))
        connection = await asyncio.wait_for(asked.get(), 10)
        connection.close()
        assert await asyncio.wait_for(task, 10) == 0
        await client.close()


async def test_who_is_cancelled_as_the_connection_goes_stays_cancelled(tmp_path: Path) -> None:
    client = CriClient(tmp_path / "s")
    async with silent_runtime(tmp_path / "s") as asked, asyncio.TaskGroup() as group:
        task = group.create_task(_follow(client))
        await asyncio.wait_for(asked.get(), 10)
        task.cancel()
        await client.close()  # ends its streams at once
        with pytest.raises(asyncio.CancelledError):
            await task
