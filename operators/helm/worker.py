"""
The program in which the Helm library runs: one request on stdin, one answer on stdout.

``{"action", "kubeconfig", …}`` as :mod:`operators.helm.library` writes it gives
``{"result": …}`` or ``{"error": {"reason", "message", "permanent"}}``. It works in
its current folder and leaves nothing anywhere else.
"""

import ctypes
import json
import os
import signal
import sys

PROGRAM = b"helm"
_PR_SET_PDEATHSIG = 1


def main(parent: str) -> int:
    """``parent``: the process id of who asks."""
    _end_with(int(parent))
    name_the_program()
    # Whatever a library prints must not mix with the answer.
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Here, since Helm looks at the name of the program when it is loaded.
    from operators.helm import actions

    json.dump(actions.answer(json.load(sys.stdin)), answer_to)
    answer_to.close()
    return 0


def name_the_program() -> None:
    """
    Helm calls the manager of the fields that it sets after the first argument of its program.

    Any other name than the command's would make conflicts with a person's ``helm``, and
    with the Python of the next update.
    """
    try:
        argument = ctypes.c_char_p.in_dll(ctypes.CDLL(None), "program_invocation_name")
    except ValueError:  # a C library without it
        return
    place = ctypes.cast(argument, ctypes.c_void_p).value
    if place is not None and len(argument.value or b"") >= len(PROGRAM):
        ctypes.memmove(place, PROGRAM + b"\0", len(PROGRAM) + 1)


def _end_with(parent: int) -> None:
    """Or else a Helm of a dead operator would work on against the one that follows."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # In a container the operators may be process 1, which elsewhere is who takes in orphans.
    if os.getppid() != parent:
        sys.exit("the operators ended before Helm began")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
