"""An image without a registry, from the machine's own static busybox."""

from __future__ import annotations

import functools
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import docker

from .processes import FleetError

TAGS = ("busybox:latest", "alpine:latest")
"""The second so that what a newcomer types first works too."""

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "",
}
FOLDERS = {"bin": 0o755, "etc": 0o755, "proc": 0o755, "dev": 0o755, "sys": 0o755}
FOLDERS |= {"root": 0o700, "home": 0o755, "var": 0o755, "usr": 0o755, "tmp": 0o1777}


@functools.cache
def busybox() -> Path:
    """A static busybox of this machine."""
    for name in ("busybox", "busybox.static", "busybox-static"):
        found = shutil.which(name)
        if found and _is_static(Path(found)):
            return Path(found)
    raise FleetError("no static busybox here; install it: apt-get install busybox-static")


def _is_static(program: Path) -> bool:
    # A dynamic ELF names its loader near the start of the file.
    return b"/ld-" not in program.read_bytes()[:4096]


@functools.cache
def root_file_system() -> bytes:
    """The image's content as a tar archive."""
    program = busybox()
    applets = subprocess.run(
        [program, "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, mode in FOLDERS.items():
            _add(archive, name, mode=mode, kind=tarfile.DIRTYPE)
        for name, text in FILES.items():
            _add(archive, name, mode=0o644, content=text.encode())
        _add(archive, "bin/busybox", mode=0o755, content=program.read_bytes())
        for applet in applets:
            if applet != "busybox":
                _add(archive, f"bin/{applet}", mode=0o777, kind=tarfile.SYMTYPE, link="busybox")
    return buffer.getvalue()


def _add(
    archive: tarfile.TarFile,
    name: str,
    *,
    mode: int,
    kind: bytes = tarfile.REGTYPE,
    content: bytes = b"",
    link: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.size, entry.linkname = mode, kind, len(content), link
    archive.addfile(entry, io.BytesIO(content))


def load(client: docker.DockerClient) -> None:
    """Gives an engine the image under all its tags."""
    first, *others = (tag.split(":") for tag in TAGS)
    client.api.import_image_from_data(
        root_file_system(),
        repository=first[0],
        tag=first[1],
        changes=['CMD ["/bin/sh"]', "ENV PATH=/bin:/sbin:/usr/bin:/usr/sbin"],
    )
    for repository, tag in others:
        client.api.tag(":".join(first), repository, tag)


def load_program(client: docker.DockerClient, image: str, program: str, text: str) -> None:
    """Gives an engine an image of that name whose entrypoint is a shell script: a stand-in for a
    public image with the same interface. ``program``: its path, such as ``app/llama-cli``."""
    buffer = io.BytesIO(root_file_system())
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        _add(archive, program, mode=0o755, content=text.encode())
    repository, _, tag = image.rpartition(":")
    client.api.import_image_from_data(
        buffer.getvalue(),
        repository=repository,
        tag=tag,
        changes=[f'ENTRYPOINT ["/{program}"]', "ENV PATH=/bin:/sbin:/usr/bin:/usr/sbin"],
    )
