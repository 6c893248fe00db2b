"""
The boot in which something changed: choose the settings, write, and remember that it is done.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from node.firstboot import apply, manifests, schema
from node.firstboot.base import ConfigError, Problem, Settings
from node.firstboot.manifests import Gathered
from node.firstboot.places import AUTHORIZED_KEYS, CONFIG_NAME, MANIFESTS_NAME, Places
from node.firstboot.plan import TIME_ZONE, Facts, Plan, default_hostname, plan, summary
from node.firstboot.run import LAST_GOOD, MISNAMED, NAMES, marks
from node.host.files import write_atomic, write_if_changed


def run(
    places: Places, raw: bytes | None, digest: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """What was taken, and what is wrong: ``{"source": …, "problems": […]}``."""
    settings, source, problems = choose(places, raw)
    names = _names(places)
    planned = plan(settings, Facts(default_hostname=names["hostname"], node_name=names["node"]))
    gathered = manifests.gather(places.partition, settings.manifests)
    changed = apply.apply(planned, places.root)
    _deploy(places, gathered, source)
    apply.ensure_host_keys(places.root / "etc/ssh", say)
    if places.root == Path("/"):
        apply.take_effect(planned, changed, say)
    _remember(places, raw, source, names | {"node": planned.node_name})
    problems = [*problems, *gathered.problems]
    if problems:
        # Not done: whoever mends the card finds the messages at every boot until then.
        digest = ""
    _done(places, planned, summary(settings, planned, source) | {"digest": digest})
    for problem in problems:
        say(f"{CONFIG_NAME}: {problem}")
    return {"source": source, "problems": [str(problem) for problem in problems]}


def choose(places: Places, raw: bytes | None) -> tuple[Settings, str, list[Problem]]:
    """The settings, where they are from (see ``status.SOURCES``), and what is wrong."""
    problems: list[Problem] = []
    if raw is not None:
        try:
            return schema.parse(raw, time_zones=_time_zones(places.root)), "file", []
        except ConfigError as err:
            problems.extend(err.problems)
        except Exception as err:  # a mistake of ours must not keep a board from coming up
            problems.append(Problem(0, "", f"cannot be read: {type(err).__name__}: {err}"))
    else:
        problems.extend(_misnamed(places.partition))
    last_good = places.memory / LAST_GOOD
    try:
        settings = schema.parse(last_good.read_bytes())
    except FileNotFoundError:
        return Settings(), "missing" if raw is None else "defaults", problems
    except (OSError, ConfigError) as err:
        problems.append(Problem(0, "", f"the last good settings are lost: {err}"))
        return Settings(), "missing" if raw is None else "defaults", problems
    return settings, "kept" if raw is None else "last good", problems


def _time_zones(root: Path) -> "_Zones | None":
    folder = root / "usr/share/zoneinfo"
    return _Zones(folder) if folder.is_dir() else None


class _Zones:
    """The names of the time zones that this machine knows; none is read before it is asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (self._folder / name).is_file()


def _misnamed(partition: Path) -> list[Problem]:
    found = [name for name in MISNAMED if (partition / name).is_file()]
    return [
        Problem(0, "", f"{name} is there instead: rename it to {CONFIG_NAME}") for name in found
    ]


def _names(places: Places) -> dict[str, str]:
    """The name that is made up when none is given, and the node's: chosen once."""
    try:
        before = json.loads((places.memory / NAMES).read_text())
        return {"hostname": str(before["hostname"]), "node": str(before["node"])}
    except (OSError, ValueError, KeyError, TypeError):
        machine_id = _line(places.root / "etc/machine-id")
        serial = _line(places.device_tree / "serial-number")
        return {"hostname": default_hostname(serial, _macs(places.sys), machine_id), "node": ""}


def _macs(sys: Path) -> list[str]:
    """Of hardware, wired before wireless."""
    links = [path for path in (sys / "class/net").glob("*") if (path / "device").exists()]
    found = [((path / "wireless").exists(), path.name, _line(path / "address")) for path in links]
    return [address for _, _, address in sorted(found)]


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _deploy(places: Places, gathered: Gathered, source: str) -> None:
    """A partition that is lost does not take its manifests along."""
    folder = places.data / "server" / "manifests" / manifests.FOLDER
    if source == "kept" and not (places.partition / MANIFESTS_NAME).is_dir():
        return
    if gathered.files or folder.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        manifests.mirror(folder, gathered.files)


def _remember(places: Places, raw: bytes | None, source: str, names: Mapping[str, str]) -> None:
    places.memory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if source == "file" and raw is not None:
        write_if_changed(places.memory / LAST_GOOD, raw, mode=0o600)
    write_if_changed(places.memory / NAMES, json.dumps(names) + "\n")


def _done(places: Places, planned: Plan, said: Mapping[str, Any]) -> None:
    """Last of all, so that whoever was interrupted begins again."""
    paths = [places.root / file.path for file in planned.files]
    paths += [places.root / TIME_ZONE, *([places.root / AUTHORIZED_KEYS] if planned.keys else [])]
    content = {**said, "files": marks(paths)}
    write_atomic(places.summary, json.dumps(content, indent=2) + "\n")
