"""Image names by the grammar of Docker's references: ``[domain[:port]/]path[:tag][@digest]``.

A text that is not one never reaches an engine: one that begins with ``-`` would be an option.
"""

from __future__ import annotations

import re

from .errors import InvalidInput
from .wording import shown

LONGEST_NAME = 255
"""Characters of the full name, domain counted: what every release of Docker takes."""

_PART = r"[a-z0-9]+(?:(?:[_.]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_BARE_ID = re.compile(r"[0-9a-f]{64}")
_EXAMPLE = "give a name such as alpine, user/app:1.2 or registry.example.com:5000/team/app"


def check_image(text: str, *, what: str = "docker_image") -> str:
    """The image as given, if ``docker run`` takes it as a name; else ``InvalidInput`` says why.

    A bare 64-digit id is refused though Docker takes it: it means something on one machine only.
    """
    if why := _trouble(text):
        raise InvalidInput(f"{what}: {shown(text)} {why}; {_EXAMPLE}", field=what)
    return text


def registry_of(image: str) -> str:
    """Whose image it is: ``docker.io`` where the name names no other."""
    domain, _ = _split(image.partition("@")[0])
    return "docker.io" if domain == "index.docker.io" else domain


def check_registry(text: str, *, what: str = "registry") -> str:
    """``registry.example.com:5000``, or ``docker.io``, as images' names begin with it. Raises
    ``InvalidInput``."""
    plain = text.removeprefix("https://").removesuffix("/")
    if plain in ("index.docker.io", "registry-1.docker.io", "index.docker.io/v1"):
        return "docker.io"
    is_one = any(mark in plain for mark in ".:") or plain == "localhost" or plain != plain.lower()
    if not _DOMAIN.fullmatch(plain) or not is_one:
        raise InvalidInput(
            f"{what}: {shown(text)} is no registry; give its host, and its port where it has one,"
            " as images' names begin with it: registry.example.com:5000",
            field=what,
        )
    return plain


def _trouble(text: str) -> str:
    if not text:
        return "is empty"
    if text.startswith("-"):
        return "begins with '-' and would be an option"
    if any(not "!" <= character <= "~" for character in text):
        return "has spaces or characters that image names do not have"
    if "://" in text:
        return "is a web address, not an image name"
    if _BARE_ID.fullmatch(text):
        return "is an image's id, known on one machine only"
    name, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.fullmatch(digest):
        return "has a digest that is not sha256:<64 lower-case hex digits>"
    domain, rest = _split(name)
    path, _, tag = rest.partition(":")
    if ":" in rest and not _TAG.fullmatch(tag):
        return "has a tag that is not letters, digits, '_', '.', '-' (at most 128)"
    return _name_trouble(domain, path)


def _split(name: str) -> tuple[str, str]:
    """Domain and the rest, as Docker tells one from the other."""
    first, slash, rest = name.partition("/")
    if not slash:
        return "docker.io", f"library/{name}"
    if first == "localhost" or any(mark in first for mark in ".:") or first != first.lower():
        return first, rest
    return "docker.io", name


def _name_trouble(domain: str, path: str) -> str:
    if path != path.lower():
        return "has upper-case letters in its name, which must be lower case"
    if not _DOMAIN.fullmatch(domain):
        return "has a registry that is not a host name with an optional port"
    if not _PATH.fullmatch(path):
        return "is not an image name"
    if len(f"{domain}/{path}") > LONGEST_NAME:
        return f"has a name of more than {LONGEST_NAME} characters"
    return ""
