"""Our own argument list: where the command after ``--`` begins, and what ``ps`` may see."""

from __future__ import annotations

from collections.abc import Sequence


def split(args: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """What is ours, and what stands after the first ``--`` (``None``: there is none)."""
    if "--" not in args:
        return list(args), None
    at = list(args).index("--")
    return list(args[:at]), list(args[at + 1 :])


def gives_values(args: Sequence[str]) -> bool:
    """Whether a value of an environment variable stands in the arguments."""
    ours, _ = split(args)
    for at, arg in enumerate(ours):
        if arg in ("-e", "--env"):
            if "=" in "".join(ours[at + 1 : at + 2]):
                return True
        elif arg.startswith("--env="):
            if "=" in arg.removeprefix("--env="):
                return True
        elif arg.startswith("-e") and "=" in arg:
            return True
    return False


def hide_values() -> None:
    """Overwrites this process's title, so that ``ps`` shows no value from now on."""
    import setproctitle

    setproctitle.setproctitle("cloudai")
