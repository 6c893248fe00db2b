"""
containerd's own stores, for what CRI cannot do: put an image there that nobody pulled.

For a short-lived process (:mod:`node.preload.run`): it waits for each answer. What is written
under a lease stays until the lease ends, and from then on if something refers to it: an
image to content by its target, content to content and to snapshots by labels.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from google.protobuf.message import Message

from node.cri.generated import images_pb2 as images
from node.cri.generated import store_pb2 as pb
from node.cri.reference import NAMESPACE
from node.cri.wire import ALREADY_EXISTS, NOT_FOUND, UNAVAILABLE, Call, CallFailed, Connection

SNAPSHOTTER = "overlayfs"
_LEASE = "pinnace-import"
_EMPTY = f"sha256:{hashlib.sha256().hexdigest()}"
# `data` of WriteContentRequest, behind the other fields and by hand: no copy of it is made.
_DATA = bytes([6 << 3 | 2])


class WrongLayer(Exception):
    """A layer is not what the image's configuration says that it is."""


class Store:
    """Its state is the connection. Raises :class:`CallFailed` and ``OSError``."""

    def __init__(self, socket: Path) -> None:
        self._connection = Connection(socket, {"containerd-namespace": NAMESPACE})

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """
        Keep what is written meanwhile; what nothing refers to at the end is removed then.

        There is one at a time, and one that was left by a process that died ends here. It does
        not expire: the clock may be set while it lasts.
        """
        self._end_lease()
        self._call("leases.v1.Leases/Create", pb.CreateLeaseRequest(id=_LEASE))
        self._connection.metadata["containerd-lease"] = _LEASE
        try:
            yield
        finally:
            del self._connection.metadata["containerd-lease"]
            self._end_lease()

    def _end_lease(self) -> None:
        try:
            self._call("leases.v1.Leases/Delete", pb.DeleteLeaseRequest(id=_LEASE, sync=True))
        except CallFailed as err:
            if err.status != NOT_FOUND:
                raise

    def write(self, ref: str, size: int, chunks: Iterable[bytes], expected: str = "") -> str:
        """
        Content of ``size`` bytes; its digest, which is ``expected`` where that is given.

        ``ref`` names the writing, not the content. What is there already is not written again;
        where ``expected`` tells that in advance, ``chunks`` is not even read.
        """
        call = self._connection.open(_path("content.v1.Content/Write"))
        writing = _Writing(call, expected)
        try:
            writing.begin(ref, size)
            writing.fill(size, chunks)
            writing.commit(size)
        except BaseException as err:
            if isinstance(err, CallFailed) and err.status == ALREADY_EXISTS:
                return writing.digest
            with contextlib.suppress(CallFailed, OSError):  # it may never have begun
                call.cancel()
                self._call("content.v1.Content/Abort", pb.AbortRequest(ref=ref))
            raise
        return writing.digest

    def label(self, digest: str, labels: Mapping[str, str]) -> None:
        """Add labels to content."""
        request = pb.UpdateContentRequest(info=pb.ContentInfo(digest=digest, labels=labels))
        request.update_mask.paths.extend(f"labels.{name}" for name in labels)
        self._call("content.v1.Content/Update", request)

    def unpack(self, layers: Sequence[images.Descriptor], diff_ids: Sequence[str]) -> str:
        """
        Snapshots of the layers, where they are not there yet; the name of the topmost.

        ``diff_ids``: the digests of the layers' contents. :class:`WrongLayer` where they differ.
        """
        chain = ""
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            parent, chain = chain, chained(chain, diff_id)
            if not self._has_snapshot(chain):
                with contextlib.suppress(_Exists):
                    self._unpack_one(layer, diff_id, parent, chain)
        return chain

    def _has_snapshot(self, name: str) -> bool:
        try:
            request = pb.StatSnapshotRequest(snapshotter=SNAPSHOTTER, key=name)
            self._call("snapshots.v1.Snapshots/Stat", request)
        except CallFailed as err:
            if err.status != NOT_FOUND:
                raise
            return False
        return True

    def _unpack_one(self, layer: images.Descriptor, diff_id: str, parent: str, chain: str) -> None:
        key = f"extract-{secrets.token_hex(8)} {chain}"
        prepare = pb.PrepareSnapshotRequest(snapshotter=SNAPSHOTTER, key=key, parent=parent)
        answer = self._call("snapshots.v1.Snapshots/Prepare", prepare)
        try:
            request = pb.ApplyRequest(
                diff=layer, mounts=pb.PrepareSnapshotResponse.FromString(answer).mounts
            )
            applied = pb.ApplyResponse.FromString(self._call("diff.v1.Diff/Apply", request))
            if applied.applied.digest != diff_id:
                raise WrongLayer(
                    f"layer {layer.digest} holds {applied.applied.digest}, not {diff_id}"
                )
            commit = pb.CommitSnapshotRequest(snapshotter=SNAPSHOTTER, name=chain, key=key)
            self._call("snapshots.v1.Snapshots/Commit", commit)
        except BaseException as err:
            with contextlib.suppress(CallFailed, OSError):
                remove = pb.RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=key)
                self._call("snapshots.v1.Snapshots/Remove", remove)
            if isinstance(err, CallFailed) and err.status == ALREADY_EXISTS:
                raise _Exists from err  # somebody else was faster
            raise

    def put_image(self, name: str, target: images.Descriptor, labels: Mapping[str, str]) -> None:
        """The image of this name, pinned or not as ``labels`` say; another one is replaced."""
        image = images.Image(name=name, target=target, labels=labels)
        try:
            self._call("images.v1.Images/Create", images.CreateImageRequest(image=image))
        except CallFailed as err:
            if err.status != ALREADY_EXISTS:
                raise
            request = images.UpdateImageRequest(image=image)
            request.update_mask.paths.extend(["target", *(f"labels.{label}" for label in labels)])
            self._call("images.v1.Images/Update", request)

    def _call(self, method: str, request: Message) -> bytes:
        return self._connection.call(_path(method), request.SerializeToString())


class _Exists(Exception):
    """What was to be made is there."""


class _Writing:
    """The messages of one ``Write``. ``digest``: of what was written so far."""

    def __init__(self, call: Call, expected: str) -> None:
        self.digest = expected or _EMPTY
        self._call = call
        self._expected = expected

    def begin(self, ref: str, size: int) -> None:
        first = pb.WriteContentRequest(action=pb.STAT, ref=ref, total=size, expected=self._expected)
        self._call.send([first.SerializeToString()])
        self._answer()

    def fill(self, size: int, chunks: Iterable[bytes]) -> None:
        """All chunks, without waiting for the answer to each."""
        offset = done = 0
        for chunk in chunks:
            head = pb.WriteContentRequest(action=pb.WRITE, offset=offset)
            self._call.send([head.SerializeToString(), _DATA, varint(len(chunk)), chunk])
            offset += len(chunk)
            if self._call.ended:
                break
        if offset != size and not self._call.ended:
            raise EOFError(f"{offset} bytes instead of {size}")
        while done < size:
            answer = self._answer()
            done, self.digest = answer.offset, answer.digest

    def commit(self, size: int) -> None:
        last = pb.WriteContentRequest(
            action=pb.COMMIT, offset=size, total=size, expected=self._expected or self.digest
        )
        self._call.send([last.SerializeToString()], end=True)
        for _ in self._call.rest():
            pass

    def _answer(self) -> pb.WriteContentResponse:
        message = self._call.receive()
        if message is None:
            raise CallFailed(UNAVAILABLE, "containerd ended the writing")
        return pb.WriteContentResponse.FromString(message)


def chained(parent: str, diff_id: str) -> str:
    """The name of a layer on those below it (the image specification's ChainID)."""
    if not parent:
        return diff_id
    return f"sha256:{hashlib.sha256(f'{parent} {diff_id}'.encode()).hexdigest()}"


def varint(value: int) -> bytes:
    """As protobuf writes lengths."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _path(method: str) -> str:
    return f"/containerd.services.{method}"
