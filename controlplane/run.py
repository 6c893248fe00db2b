"""
The composition root: in which order the control plane starts and stops.

Keys and certificates, the store, the cache, the API server; then, through the
API itself, what must exist; then controllers, scheduler and deployer. Everything
runs in one task group of one event loop.
"""

import asyncio
import logging
import signal
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import FrameType
from typing import Any

from controlplane import addresses
from controlplane.api.app import ApiServer
from controlplane.api.bootstrap_objects import ensure_bootstrap_objects, ensure_service_cidr
from controlplane.api.bootstrap_policy import ensure_policy
from controlplane.api.call import Parts
from controlplane.api.customresources.serve import CustomKinds
from controlplane.api.expiry import EventExpiry
from controlplane.api.local import LocalClient
from controlplane.api.server import Listener
from controlplane.assemble import (
    ITSELF,
    Foundation,
    around,
    controllers,
    deployer,
    foundation,
    listener_tls,
    parts,
)
from controlplane.client.clock import WallClock
from controlplane.config import Config, from_settings
from controlplane.deploy.definitions import ensure_crds
from controlplane.objects.facts import schema_by_name
from controlplane.pki.ensure import ensure_pki
from controlplane.reconcile.clock import LoopClock
from controlplane.reconcile.loop import Loop
from controlplane.renew import Renewer
from controlplane.scheduler.loop import Scheduler
from controlplane.store import compaction
from controlplane.store.reserve import SIZE
from controlplane.store.sqlite import SqliteStore

LOG = logging.getLogger(__name__)
_PATIENCE = 8.0  # seconds to stop in; the daemon has ten
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def main(settings: Mapping[str, Any], ready: Callable[[], None]) -> int:
    """Run the control plane until SIGTERM; ``ready`` is called once it serves."""
    clock = settings.get("clock") or WallClock()
    asyncio.run(_serve(from_settings(settings), ready, clock))
    return 0


async def _serve(config: Config, ready: Callable[[], None], clock: WallClock) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clock.follow(asyncio.get_running_loop())
    pki = await asyncio.to_thread(ensure_pki, addresses.named_in(config), clock.now())
    for warning in pki.warnings:
        LOG.warning("%s", warning)
    (config.server_dir / "db").mkdir(mode=0o700, parents=True, exist_ok=True)
    store = await SqliteStore.open(config.server_dir / "db" / "state.db", reserve=SIZE)
    try:
        await _run(foundation(config, pki, store, clock), ready, stop)
    finally:
        await store.close()


async def _run(base: Foundation, ready: Callable[[], None], stop: asyncio.Event) -> None:
    await base.cache.load(base.store)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(base.cache.follow(base.store))
        made = parts(base)
        api = ApiServer(made, around(base.config))
        CustomKinds(
            base.kinds,
            base.schemas,
            metadata=schema_by_name(OBJECT_META),
            changed=api.kinds_changed,
        ).follow(base.cache)
        tls = listener_tls(base.pki)
        listener = Listener(api, tls=tls)
        await listener.start(base.config.bind_address, base.config.https_port)
        client = LocalClient(made, ITSELF)
        await ensure_bootstrap_objects(client, base.cache, base.pki)
        await ensure_service_cidr(client, base.cache, base.config.service_cidr, base.now())
        await ensure_policy(client, base.cache)
        await ensure_crds(client)
        renewer = _renewer(base, made, tls)
        kept = (renewer.run(), addresses.follow(base.config.bind_address, renewer.look))
        working = [tasks.create_task(work) for work in (*_work(base, client), *kept)]
        ready()
        await stop.wait()
        asyncio.get_running_loop().call_later(_PATIENCE, _tell_who_runs)
        await api.stop()
        await listener.stop()
        for task in (*working, following):
            task.cancel()


def _tell_who_runs() -> None:
    """Before the daemon loses its patience: where those stand who have not ended."""
    for task in asyncio.all_tasks():
        frames = [f"{f.f_code.co_name}:{f.f_lineno}" for f in _frames(task)]
        LOG.warning("has not ended: %s at %s", task.get_name(), " < ".join(frames))


def _frames(task: "asyncio.Task[Any]") -> list[FrameType]:
    """From the innermost out, through what each awaits."""
    found: list[FrameType] = []
    waited: Any = task.get_coro()
    while waited is not None and (frame := getattr(waited, "cr_frame", None)) is not None:
        found.insert(0, frame)
        waited = waited.cr_await
    return found


def _renewer(base: Foundation, made: Parts, tls: ssl.SSLContext) -> Renewer:
    shown = [(tls, base.pki.serving)]
    if made.kubelet_tls is not None:
        shown.append((made.kubelet_tls, base.pki.kubelet_client))
    renewer = Renewer(lambda: addresses.named_in(base.config), base.now, shown)
    base.clock.on_step.append(lambda _by: renewer.look())
    return renewer


def _work(base: Foundation, client: LocalClient) -> Sequence[Coroutine[Any, Any, None]]:
    """What runs beside the API server for as long as it runs."""
    clock = LoopClock(base.now)
    loop = Loop(
        controllers(base),
        client=client,
        reads=base.cache,
        feed=base.cache,
        clock=clock,
        kinds=base.kinds,
    )
    base.clock.on_step.append(lambda _by: loop.hurry())
    scheduler = Scheduler(client=client, reads=base.cache, feed=base.cache, clock=clock)
    deploy = deployer(base, client, clock)
    expiry = EventExpiry(base.store, base.cache, monotonic=asyncio.get_running_loop().time)
    return (loop.run(), scheduler.run(), deploy.run(), expiry.run(), _compact(base))


async def _compact(base: Foundation) -> None:
    """Forget old history, asked only after writes: an idle store is left alone."""
    loop = asyncio.get_running_loop()
    marks: Sequence[compaction.Mark] = ()
    while True:
        await base.cache.wait_for(base.cache.revision + 1)
        await asyncio.sleep(compaction.DEFAULT.seconds / 10)
        seen = base.store.statistics()
        decided = compaction.plan(
            marks, now=loop.time(), newest=seen.revision, compacted=seen.compact_revision
        )
        marks = decided.marks
        if decided.compact_to:
            await base.store.compact(decided.compact_to)
