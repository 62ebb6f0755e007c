"""What the engine's refusals mean to a person. Pure: its words in, ours and its own out.

``transient``: the engine's trouble, not the task's; the same order may run later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """Why it will not run, with the engine's own words where ours do not hold them."""

    reason: str
    transient: bool = False
    hint: str = ""


TRANSIENT = (
    (r"no space left on device", "the disk of its Docker is full", "free space there"),
    (r"cannot connect to the docker daemon|is the docker daemon running", "Docker is down", ""),
    (r"shutting down|server is stopping|context canceled", "Docker is shutting down", ""),
    (r"connection reset|unexpected EOF|error during connect|i/o timeout", "Docker broke off", ""),
    (r"deadline exceeded|timed out|TLS handshake timeout", "Docker took too long", ""),
    (r"resource temporarily unavailable|cannot allocate memory", "the host is exhausted", ""),
    (r"containerd.*(unavailable|not running)|dial unix.*containerd", "containerd is down", ""),
)

START = (
    (
        r'exec: "(?P<what>[^"]*)": (executable file not found|stat .*no such file)',
        'cannot start: "{what}" is not a command in the image {image}',
    ),
    (
        r'exec: "(?P<what>[^"]*)": permission denied',
        'cannot start: "{what}" in the image {image} may not be executed',
    ),
    (
        r"exec format error",
        "cannot start: the image {image} is for another kind of processor",
    ),
    (
        r"does not match the specified platform|no matching manifest",
        "the image {image} is not for this worker's kind of processor",
    ),
    (
        r"could not select device driver|nvidia-container-runtime-hook.*not found"
        r"|unknown runtime.*nvidia|unresolvable CDI devices",
        "the worker's Docker cannot give GPUs to containers: the NVIDIA container toolkit is"
        " not set up there (`cloudai doctor` has the mend)",
    ),
    (
        r"nvidia-container-cli: (?P<what>.*?)(: unknown)?$",
        "the worker's GPU runtime refused: {what}",
    ),
    (
        r"bind source path does not exist: (?P<what>.*)",
        "mount: {what} does not exist on the worker",
    ),
    (r"no such volume|volume .* not found", "mount: there is no such volume on the worker"),
    (r"invalid mount config|invalid argument .* for \"--mount\"", "the mount cannot be meant"),
    (
        r"Range of CPUs is from [0-9.]+ to (?P<what>[0-9.]+)",
        "more CPUs are asked for than the worker has ({what})",
    ),
    (
        r"Minimum memory limit allowed is (?P<what>\S+)",
        "too little memory is asked for: Docker gives no container less than {what}",
    ),
    (
        r"unable to find user (?P<what>[^:]*)",
        'the image {image} has no user "{what}"',
    ),
    (r"--storage-opt is supported only", "the worker's Docker cannot limit storage"),
    (
        r"is not an absolute path|working directory.*invalid",
        "the working directory must be absolute",
    ),
    (r"is not a directory", "the working directory is not a folder in the image {image}"),
    (r"invalid reference format", "{image} is not an image name"),
    (r"No command specified", "the image {image} has no command of its own: say what to run"),
    (r"address already in use|port is already allocated", "a port it needs is taken there"),
    (
        r"cannot share the host's network namespace when user namespaces",
        "the worker's Docker runs containers in user namespaces (userns-remap), where members of"
        " a group cannot have its network",
    ),
    (r"error setting rlimit", "the worker's Docker may not raise the limit of open files"),
    (r"Argument list too long", "its command and environment are too long for the kernel"),
)

PULL = (
    (
        r"pull access denied|repository does not exist|requested access to the resource is denied"
        r"|unauthorized|authentication required|denied:|no basic auth credentials",
        "there is no such image, or the worker may not have it",
        "check the name; a private image needs a log-in: `cloudai registry login REGISTRY -u USER`",
    ),
    (r"manifest unknown|manifest for .* not found|not found: manifest", "there is no such tag", ""),
    (
        r"no such host|server misbehaving|network is unreachable|lookup .*:",
        "the worker cannot reach the registry",
        "check the worker's network, or send the image from here: `cloudai image push`",
    ),
    (
        r"connection refused|i/o timeout|TLS handshake|EOF|connection reset|deadline exceeded",
        "the registry did not answer the worker",
        "try again; check the worker's network",
    ),
    (
        r"toomanyrequests|rate limit",
        "the registry limits how much is pulled",
        "a log-in raises that limit: `cloudai registry login docker.io -u USER`",
    ),
    (r"no matching manifest", "it is not for this worker's kind of processor", ""),
    (
        r"no space left on device",
        "the disk of the worker's Docker is full",
        "free space there: `docker system prune`",
    ),
    (r"invalid reference format", "that is not an image name", ""),
)


def why_not_started(words: str, *, image: str) -> Failure:
    """From what ``docker run`` or ``State.Error`` said."""
    words = plain(words)
    for pattern, meaning, hint in TRANSIENT:
        if re.search(pattern, words, re.IGNORECASE):
            return Failure(f"{meaning}: {words}", transient=True, hint=hint)
    for pattern, meaning in START:
        if match := re.search(pattern, words, re.IGNORECASE):
            said = meaning.format(image=image, what=match.groupdict().get("what"))
            return Failure(f"{said} (Docker: {words})")
    return Failure(f"Docker refused to start it: {words}" if words else "Docker gave no reason")


def why_not_pulled(words: str, *, image: str) -> Failure:
    """From what ``docker pull`` said."""
    words = plain(words)
    for pattern, meaning, hint in PULL:
        if re.search(pattern, words, re.IGNORECASE):
            return Failure(f"cannot pull {image}: {meaning} (Docker: {words})", hint=hint)
    return Failure(f"cannot pull {image}: {words or 'Docker gave no reason'}")


LOAD = (
    (
        r"no space left on device",
        "the disk of its Docker is full",
        "an image takes twice its size while it is unpacked; free space: `docker system prune`",
    ),
    (r"cannot connect to the docker daemon|is the docker daemon running", "Docker is down", ""),
    (r"unexpected EOF|broken pipe|connection reset", "it did not come whole", "try again"),
)


def why_not_loaded(words: str, *, image: str, worker: str) -> Failure:
    """From what ``docker load`` said on the worker; nothing where it said that all is well, and
    the image is not there."""
    words = plain(words)
    for pattern, meaning, hint in LOAD:
        if re.search(pattern, words, re.IGNORECASE):
            return Failure(
                f"cannot send {image} to {worker}: {meaning} (Docker: {words})", hint=hint
            )
    why = words or "its Docker took it and does not have it"
    return Failure(f"cannot send {image} to {worker}: {why}", hint="try again")


def plain(words: str) -> str:
    """The engine's words without what it says before and after every one of them."""
    words = words.strip()
    for prefix in ("docker: ", "Error response from daemon: ", "Error: "):
        words = words.removeprefix(prefix)
    return words.removesuffix(": unknown").removesuffix(".").strip()
