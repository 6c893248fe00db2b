"""
``pinnace update``: what a person does about updates on this machine.

While the node runs, its updater is asked at ``<run>/update.sock``. While it is down the same is
done here, directly: then nothing needs to be healthy before, and the switch comes with its start.
"""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.config import datastore
from node.settings import UsageError
from node.update import kept, place, plan
from node.update.base import InstallError, RefusedError, Slot, Slots
from node.update.request import Request, from_json, to_json
from node.update.state import Phase, Records, State, Step

USAGE = (
    "usage: pinnace update status | install BUNDLE [--now] [--retry-failed] [--without-snapshot] "
    "[--soak=60] [--deadline=900] | commit | back | failed [--forget=VERSION] "
    "| kept [VERSION] [--objects] [--remove], each with [FLAGS]"
)
SOCKET = "update.sock"
NO_SLOTS = "this machine has no slots for another version"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What stands on the command line."""

    verb: str
    name: str  # a bundle or a version; "": none
    options: Mapping[str, str]

    def has(self, option: str) -> bool:
        return option in self.options


_VALUES = ("soak", "deadline", "forget")
_VERBS: Mapping[str, Sequence[str]] = {
    "status": (),
    "install": ("now", "retry-failed", "without-snapshot", "soak", "deadline"),
    "commit": (),
    "back": (),
    "failed": ("forget",),
    "kept": ("objects", "remove"),
}
_NAMED = {"install": (1, 1), "kept": (0, 1)}  # verb → least and most names


def parse(arguments: Sequence[str]) -> tuple[Given, list[str]]:
    """What is wanted, and what is left for the settings. Raises :class:`UsageError`."""
    if not arguments or arguments[0] not in _VERBS:
        raise UsageError(USAGE)
    verb, words = arguments[0], list(arguments[1:])
    names, options, rest = list[str](), dict[str, str](), list[str]()
    while words:
        word, equals, value = words.pop(0).partition("=")
        option = word.removeprefix("--")
        if word.startswith("--") and option in _VERBS[verb]:
            if option in _VALUES and not equals:
                if not words:
                    raise UsageError(f"{word} needs a value: {word}=VALUE")
                value = words.pop(0)
            options[option] = value
        elif word.startswith("-"):
            rest.append(word + equals + value)
        else:
            names.append(word + equals + value)
    least, most = _NAMED.get(verb, (0, 0))
    if not least <= len(names) <= most:
        raise UsageError(USAGE)
    return Given(verb=verb, name=names[0] if names else "", options=options), rest


def run(given: Given, settings: Mapping[str, Any], say: Say) -> None:
    """Raises :class:`UsageError`, one line."""
    data_dir, run_dir = Path(settings["data-dir"]), Path(settings["run-dir"])
    command = Command(data_dir, run_dir, say, elsewhere=datastore(settings))
    try:
        match given.verb:
            case "status":
                command.status()
            case "install":
                command.install(given)
            case "commit" | "back":
                command.order(given.verb)
            case "failed":
                command.failed(given.options.get("forget", ""))
            case _:
                command.kept(given)
    except (RefusedError, InstallError) as err:
        raise UsageError(str(err)) from err
    except OSError as err:
        raise UsageError(f"{err.filename or command.records.folder}: {err.strerror}") from err


class Command:
    """What is asked is answered from the files and the slots; what is ordered, by who runs."""

    def __init__(self, data_dir: Path, run_dir: Path, say: Say, *, elsewhere: str = "") -> None:
        """``elsewhere``: the kind of a datastore that is not in ``data_dir``."""
        self.records = Records(data_dir / "update")
        self._socket = run_dir / SOCKET
        self._say = say
        self._elsewhere = elsewhere

    def status(self) -> None:
        slots = place.slots()
        if slots is None:
            raise UsageError(NO_SLOTS)
        running, other, on_trial = asyncio.run(_seen(slots))
        trial = ", on trial" if on_trial else ""
        self._say(f"running: {running.version} in slot {running.name} ({slots.board}{trial})")
        self._say(f"other:   {_described(other)}")
        state = self.records.load()
        if state is not None:
            for line in _told(state):
                self._say(line)
        for entry in self.records.history():
            about = f": {entry['message']}" if entry.get("message") else ""
            self._say(f"  {entry['at']} {entry['version']} {entry['phase']}{about}")

    def install(self, given: Given) -> None:
        request = _request(given)
        if self._runs():
            return self._follow({"install": to_json(request)})
        self._alone(request)

    def order(self, order: str) -> None:
        state = self.records.load()
        is_active = state is not None and not state.has_ended
        if not is_active and order == "back":
            # What was committed is left by a request of its own, with a trial of its own.
            request = replace(_person(), rollback=True)
            if self._runs():
                return self._follow({"install": to_json(request)})
            return self._alone(request)
        if self._runs():
            return self._follow({"order": order})
        if state is None or state.phase is not Phase.TRIAL:
            raise UsageError("nothing is on trial: see `pinnace update status`")
        self._end_trial(state, order)

    def failed(self, forget: str) -> None:
        if forget:
            if not self.records.forget_failed(forget):
                raise UsageError(f"{forget} is not remembered as failed")
            self._say(f"{forget} may be tried again")
            return
        for version, failure in sorted(self.records.failed().items()):
            self._say(f"{version} {failure.at} {failure.reason}")

    def kept(self, given: Given) -> None:
        found = kept.folders(self.records.folder / "kept")
        if not given.name:
            for folder in found:
                writes = kept.read_list(folder)
                self._say(f"{folder.name} {len(writes)} written: {kept.summary(writes)}")
            return
        chosen = [f for f in found if given.name in (f.name, f.name.rpartition("-")[0])]
        if not chosen:
            raise UsageError(f"nothing is kept of {given.name}: see `pinnace update kept`")
        for folder in chosen:
            if given.has("remove"):
                kept.remove(folder)
                self._say(f"removed {folder}")
            elif given.has("objects"):
                self._say((folder / "objects.json").read_text().strip())
            else:
                self._say(str(folder))
                for write in kept.read_list(folder):
                    self._say(f"  {write}")

    # -- with the updater

    def _runs(self) -> bool:
        return self._socket.exists() and _connects(self._socket)

    def _follow(self, question: Mapping[str, Any]) -> None:
        shown = ""
        for line in _ask(self._socket, question):
            if error := line.get("error"):
                raise UsageError(str(error))
            text = _line(line)
            if text != shown:
                self._say(text)
                shown = text
            if line.get("done") in ("Refused", "Failed"):
                raise UsageError(str(line.get("message") or line["done"]))
            if "done" in line:
                return
        raise UsageError("the node ended before it was done: see `pinnace update status`")

    # -- without it

    def _alone(self, request: Request) -> None:
        slots = place.slots()
        if slots is None:
            raise UsageError(NO_SLOTS)
        state = self.records.load()
        if state is not None and state.phase in (Phase.SWITCHING, Phase.TRIAL):
            raise UsageError(f"another update is on its way ({state.phase}): start the node")
        now = datetime.fromtimestamp(place.moment().now.timestamp(), UTC)
        done = asyncio.run(self._prepare(slots, request, now))
        self.records.save(done)
        if done.phase is Phase.SWITCHING:
            self._say(f"{_about(done)} is tried with the next start of pinnace")
        else:
            self._say(f"{_about(done)} is installed; --now tries it")

    async def _prepare(self, slots: Slots, request: Request, now: datetime) -> State:
        running, other = await slots.running(), await slots.other()
        facts = plan.Facts(
            state=None,
            request=request,
            running=running,
            other=other,
            on_trial=await slots.on_trial(),
            now=now,
            uptime=0.0,
            boot="",
            failed=self.records.failed(),
            elsewhere=self._elsewhere,
        )
        if facts.on_trial:
            raise UsageError("a trial runs: commit it or leave it first")
        if "://" in request.url:
            raise UsageError("the node is down: start it to fetch a bundle, or name a file")
        if not request.rollback:
            bundle = await slots.check(Path(request.url))
            request = replace(request, version=str(bundle.version))
            if refused := plan.refusal(request, facts):
                raise RefusedError(refused.reason, refused.message)
            if other.version != bundle.version or other.bad:
                await slots.install(bundle, lambda percent: self._say(f"Installing {percent} %"))
        elif refused := plan.refusal(request, facts):
            raise RefusedError(refused.reason, refused.message)
        else:
            request = replace(request, version=str(running.version or ""))
        made = State(
            request=request,
            phase=Phase.INSTALLED,
            from_version=str(running.version or ""),
            from_slot=running.name,
            to_slot=other.name,
            has_looked=True,  # nothing was healthy: the node was down
        )
        if request.stage == "switch":
            return made.at(Phase.SWITCHING, now, step=Step.STOP)
        return made.at(Phase.INSTALLED, now)

    def _end_trial(self, state: State, order: str) -> None:
        slots = place.slots()
        if slots is None:
            raise UsageError(NO_SLOTS)
        if order == "back":
            message = "left by hand"
            self.records.save(replace(state, step=Step.BACK, message=message))
            self._say("it is left with the next start of pinnace")
            return
        asyncio.run(place.commit(slots))
        self.records.save(plan.committed(state, place.moment().now))
        self._say(f"{_about(state)} is committed")


def _person() -> Request:
    """A request of its own each time."""
    now = place.moment().now
    return Request(version="", uid=f"local-{now:%Y%m%d%H%M%S%f}", stage="switch")


def _request(given: Given) -> Request:
    path = Path(given.name)
    url = given.name if "://" in given.name else str(path.absolute())
    if "://" not in given.name and not path.is_file():
        raise UsageError(f"there is no bundle at {path}")
    numbers = {}
    for option, name in (("soak", "soakSeconds"), ("deadline", "deadlineSeconds")):
        if text := given.options.get(option):
            if not text.isdecimal():
                raise UsageError(f"--{option} takes seconds, not {text!r}")
            numbers[name] = int(text)
    fields = to_json(_person()) | {"url": url, "stage": "switch" if given.has("now") else "install"}
    fields["retryFailed"] = given.has("retry-failed")
    fields["withoutSnapshot"] = given.has("without-snapshot")
    return from_json(fields | numbers)


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _ask(path: Path, question: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(path))
        asked.sendall(json.dumps(question).encode() + b"\n")
        with asked.makefile("rb") as lines:
            for line in lines:
                yield json.loads(line)


def _line(word: Mapping[str, Any]) -> str:
    text = f"{word.get('version') or 'update'}: {word.get('phase') or word.get('done')}"
    if word.get("percent"):
        text += f" {word['percent']} %"
    return text + (f": {word['message']}" if word.get("message") else "")


async def _seen(slots: Slots) -> tuple[Slot, Slot, bool]:
    return await slots.running(), await slots.other(), await slots.on_trial()


def _described(slot: Slot) -> str:
    if slot.version is None:
        return f"slot {slot.name} is empty"
    return f"{slot.version} in slot {slot.name}" + (", not to be started" if slot.bad else "")


def _about(state: State) -> str:
    return "the other slot" if state.request.rollback else state.request.version


def _told(state: State) -> Iterator[str]:
    about = f": {state.message}" if state.message else ""
    plan_name = f" (plan {state.request.plan})" if state.request.plan else ""
    yield f"update to {state.request.version or 'another version'}{plan_name}: {state.phase}{about}"
    for phase, at in state.times.items():
        yield f"  {at} {phase}"
    if state.kept_count:
        yield f"  kept: {state.kept_count} objects that the trial wrote, in {state.kept}"
