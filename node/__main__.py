"""The command line: the server, the agent, kubectl and the day-2 commands."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from controlplane.objects.version import VERSION
from node import settings
from node.flags import FLAGS

COMMANDS = {
    "server": "run the control plane and the agent on this machine",
    "agent": "run the agent alone and join a server",
    "kubectl": "kubectl, as the cluster's administrator",
    "kubeconfig": "print the administrator's kubeconfig, for another computer",
    "status": "how this machine is reached, and what is wrong with it",
    "image": "flash: write an image to a card; check: look at a pinnace.yaml; build: make one",
    "snapshot": "save: a consistent copy of the datastore while the server runs",
    "killall": "stop every pod on this machine and take down its network",
    "repair": "what is wrong with this machine's data; with --yes mend it",
    "reset": "--keep-data or --wipe: back to a machine on which nothing was started",
    "netpol": "explain: why a pod may talk to another, or may not",
    "update": "status, install, commit, back, failed, kept: another version of Pinnace",
    "version": "print the version",
    "help": "print this list",
}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    sys.stderr.write(f"pinnace: {text}\n")
    sys.stderr.flush()


def usage() -> str:
    lines = ["usage: pinnace COMMAND [FLAGS]", ""]
    lines += [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    return "\n".join(lines)


def flags(role: str) -> str:
    lines = [f"usage: pinnace {role} [FLAGS]", ""]
    for flag in FLAGS:
        if role == "server" or not flag.server_only:
            default = f" (default: {flag.default})" if flag.default not in ("", ()) else ""
            short = f"-{flag.short}, " if flag.short else ""
            lines.append(f"  {short}--{flag.name:<24} {flag.help}{default}")
    return "\n".join(lines)


def serve(role: str, arguments: Sequence[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        say(flags(role))
        return 0
    environment = settings.environment()
    read = settings.read(role, arguments, environment)
    if role == "agent":
        raise settings.UsageError(
            "pinnace agent is not supported yet: run `pinnace server` on this machine"
        )
    # Loaded late: `pinnace kubectl` and `pinnace help` need none of it.
    daemon = importlib.import_module("node.daemon")
    code: int = daemon.serve(read, notify_address=environment.get("NOTIFY_SOCKET", ""), say=say)
    return code


def kubectl(arguments: Sequence[str]) -> int:
    module = importlib.import_module("node.kubectl")
    read = settings.read("server", (), settings.environment())
    module.become(arguments, settings.environment(), Path(read["write-kubeconfig"]), say)
    return 0


def snapshot(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] != "save":
        raise settings.UsageError("usage: pinnace snapshot save [--name=FILE] [FLAGS]")
    module = importlib.import_module("controlplane.snapshot")
    names = [a.partition("=")[2] for a in arguments if a.startswith("--name=")]
    rest = [a for a in arguments[1:] if not a.startswith("--name=")]
    read = settings.read("server", rest, settings.environment())
    try:
        say(str(module.save(read, names[-1] if names else "")))
    except module.CannotSave as err:
        raise settings.UsageError(str(err)) from err
    return 0


def killall(arguments: Sequence[str]) -> int:
    module = importlib.import_module("node.killall")
    module.run(settings.read("server", arguments, settings.environment()), say)
    return 0


def repair(arguments: Sequence[str]) -> int:
    module = importlib.import_module("node.repair.command")
    asked, rest = module.parse(arguments)
    code: int = module.run(asked, settings.read("server", rest, settings.environment()), say)
    return code


def reset(arguments: Sequence[str]) -> int:
    module = importlib.import_module("node.reset")
    mode, yes, rest = module.parse(arguments)
    module.run(mode, settings.read("server", rest, settings.environment()), say, yes=yes)
    return 0


def netpol(arguments: Sequence[str]) -> int:
    module = importlib.import_module("node.netpol")
    question, rest = module.parse(arguments)
    read = settings.read("server", rest, settings.environment())
    module.run(question, Path(read["run-dir"]), say)
    return 0


def update(arguments: Sequence[str]) -> int:
    module = importlib.import_module("node.update.command")
    given, rest = module.parse(arguments)
    module.run(given, settings.read("server", rest, settings.environment()), say)
    return 0


def kubeconfig(arguments: Sequence[str]) -> int:
    module = importlib.import_module("node.kubeconfig")
    if {"-h", "--help"} & set(arguments):
        say(module.HELP)
        return 0
    wanted, rest = module.parse(arguments)
    environment = settings.environment()
    read = settings.read("server", rest, environment)
    module.run(wanted, read, environment.get("SSH_CONNECTION", ""), say=say, warn=warn)
    return 0


def image(arguments: Sequence[str]) -> int:
    """Each subcommand is a module of its own, since most machines run none of them."""
    names = {"flash": "run", "check": "check", "build": "build"}
    modules = {command: f"node.flash.{name}" for command, name in names.items()}
    command = arguments[0] if arguments else ""
    if command not in modules:
        raise settings.UsageError(f"usage: pinnace image {'|'.join(sorted(modules))} …")
    code: int = importlib.import_module(modules[command]).main(arguments[1:], say, warn)
    return code


def firstboot(_: Sequence[str]) -> int:
    """Of the unit that runs before the network: put pinnace.yaml into effect."""
    module = importlib.import_module("node.firstboot.run")
    module.main(importlib.import_module("node.firstboot.places").Places(), warn)
    return 0


def status(arguments: Sequence[str]) -> int:
    module = importlib.import_module("node.firstboot.command")
    code: int = module.main(arguments, say, warn)
    return code


def version(_: Sequence[str]) -> int:
    say(f"pinnace {VERSION}")
    return 0


def show_usage(_: Sequence[str]) -> int:
    say(usage())
    return 0


HANDLERS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "server": lambda rest: serve("server", rest),
    "agent": lambda rest: serve("agent", rest),
    "kubectl": kubectl,
    "kubeconfig": kubeconfig,
    "status": status,
    "image": image,
    "firstboot": firstboot,
    "snapshot": snapshot,
    "killall": killall,
    "repair": repair,
    "reset": reset,
    "netpol": netpol,
    "update": update,
    **dict.fromkeys(("version", "--version", "-v"), version),
    **dict.fromkeys(("help", "--help", "-h"), show_usage),
}


def dispatch(arguments: Sequence[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    if command not in HANDLERS:
        raise settings.UsageError(f"unknown command {command!r}: see `pinnace help`")
    return HANDLERS[command](rest)


def main() -> int:
    """Anything that is the user's to mend is one line on standard error and exit code 1."""
    try:
        return dispatch(sys.argv[1:])
    except settings.UsageError as err:
        sys.stderr.write(f"pinnace: {err}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
