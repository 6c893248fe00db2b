"""The operators as a program of their own, on another Kubernetes: ``pinnace-operators``."""

import logging
import sys

from operators import config, elsewhere


def main() -> int:
    """Anything that is the user's to mend is one line on standard error and exit code 1."""
    try:
        told = elsewhere.read(sys.argv[1:], config.environment())
    except elsewhere.UsageError as err:
        sys.stderr.write(f"pinnace-operators: {err}\n")
        return 1
    logging.basicConfig(
        level=logging.DEBUG if told.debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Late: --help and a wrong flag need none of it.
    from operators import run

    try:
        return run.main_elsewhere(told.config, told.election, told.health)
    except OSError as err:
        sys.stderr.write(f"pinnace-operators: {err}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
