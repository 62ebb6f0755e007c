"""How a script travels: whole or not at all, and its answer likewise.

The remote command is always ``exec /bin/sh -s``; the script arrives on stdin, so nothing of it
shows in ``ps``, no login shell reads it and no limit on arguments applies (facts, 9). All of it
stands inside one brace group: a shell runs a group only once it has read the closing brace, so
a script that arrives cut anywhere runs nothing.

Three frames, and one line for terminals:

``frame`` for a call with an answer::

    NONCE begin                  the whole script has arrived
    NONCE reply LENGTH           bytes that follow
    BODY NONCE status STATUS
    NONCE end

The script's stdin is ``/dev/null``. Its stdout is gathered on the worker and sent in one piece
once its main line is done, so children that it leaves behind can neither hold the answer up nor
write into it, and whatever a login shell prints, before, after or between, is told apart.
Bytes come back exactly, but for NUL, which no shell can hold: use ``frame_stream`` for those.
Its stderr is no part of the answer. A connection that dies ends nothing: what was begun is
carried through. To end it, ``stop_line`` is sent on stdin: sshd passes signals on for some users
and not for others (never for root), and a line always arrives. A script whose reader has gone
before it begins does not begin.

``frame_stream`` for output as it comes: everything after the line ``NONCE begin`` is the
script's own stdout. Its stdin is ``/dev/null``; **file descriptor 3 is the connection's stdin**,
which stays open until the reader leaves or is gone. The frame itself watches it: when it
closes, the script's whole process group gets SIGTERM, and SIGKILL two seconds later. So a
streaming script is plain commands (``docker logs -f X``) and leaves nothing behind, and need
not read descriptor 3 itself. The group also gets SIGTERM when the script's main line ends.

``frame_input`` for a call that is given bytes: as ``frame``, but the script's stdin is what
comes after it on the connection. A shell may read ahead, so those bytes are sent once its mark
``NONCE begin`` has come: by then it has read the whole script and reads no more. **A connection
that dies looks to the script like the end of its input**: it must be able to tell from the bytes
whether all of them came, and nothing ends it but that end and its own deadlines.

All run in dash, ``bash --posix`` and busybox sh.
"""

from __future__ import annotations

import re
import secrets
import shlex
from dataclasses import dataclass

from cloudai.shells import Reply

COMMAND = "exec /bin/sh -s"
"""What is asked of the login shell, whichever it is: nothing in it is special to any."""

NUMBER = re.compile(rb"[0-9]{1,12}")

PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 _-./:=,@+")


@dataclass(frozen=True, slots=True)
class Framed:
    """What is sent, and the word that marks what is ours in what comes back."""

    text: str
    nonce: str

    @property
    def sent(self) -> bytes:
        """The text as bytes for stdin."""
        return self.text.encode("utf-8", "surrogateescape")


END_GROUP = "trap '' TERM; kill -TERM 0; sleep 2; kill -KILL 0"


def frame(script: str) -> Framed:
    """Wraps plain commands for one whole answer, see ``unframe``.

    Raises ``ValueError`` for a script with a NUL byte, which no shell can read.
    """
    nonce = _nonce(script)
    listening = f"""exec 3<&0 </dev/null
(
  read -r cloudai_word && [ "$cloudai_word" = '{nonce} stop' ] || exit 0
  {END_GROUP}
) <&3 >/dev/null 2>&1 &
exec 3<&-
"""
    return _answering(script, nonce, before=listening, stdin="</dev/null")


def frame_input(script: str) -> Framed:
    """Wraps plain commands that read their stdin, for one whole answer; see above.

    Raises ``ValueError`` for a script with a NUL byte.
    """
    return _answering(script, _nonce(script), before="", stdin="")


def _answering(script: str, nonce: str, *, before: str, stdin: str) -> Framed:
    # The empty line after the status is for busybox sed, which reads one line ahead.
    return Framed(
        f"""{{
cloudai_main() {{
:
{script}
}}
{before}printf '\\n%s begin\\n' {nonce} || exit 1
cloudai_reply=$(
  {{
    (cloudai_main) {stdin}
    printf '\\n%s status %s\\n\\n' {nonce} "$?"
  }} | LC_ALL=C sed '/^{nonce} status [0-9]*$/q'
)
LC_ALL=C
printf '\\n%s reply %s\\n' {nonce} "${{#cloudai_reply}}"
printf '%s' "$cloudai_reply"
printf '\\n%s end\\n' {nonce}
exit 0
}}
""",
        nonce,
    )


def frame_stream(script: str) -> Framed:
    """Wraps plain commands whose stdout is read as it comes; see above for its stdin.

    Raises ``ValueError`` for a script with a NUL byte.
    """
    nonce = _nonce(script)
    return Framed(
        f"""{{
cloudai_main() {{
:
{script}
}}
exec 3<&0 </dev/null
(
  while read -r cloudai_ignored; do :; done
  {END_GROUP}
) <&3 >/dev/null 2>&1 &
printf '\\n%s begin\\n' {nonce} || exit 1
(cloudai_main)
cloudai_status=$?
trap '' TERM
kill -TERM 0
exit "$cloudai_status"
}}
""",
        nonce,
    )


def command_line(command: str) -> Framed:
    """Shell text as one command for any login shell (csh, fish, ...), its streams left alone.

    Its output begins after the line ``NONCE begin PID``. Every character that some shell could
    take for its own, inside single quotes or out, is written in octal.
    """
    nonce = _nonce(command)
    encoded = "".join(
        chr(byte) if byte in PLAIN else f"\\0{byte:03o}"
        for byte in command.encode("utf-8", "surrogateescape")
    )
    begin = f'printf "%b" "\\0012{nonce} begin $$\\0012"'
    return Framed(f'exec /bin/sh -c \'{begin}; eval "$(printf %b "{encoded}")"\'', nonce)


def stop_line(nonce: str) -> bytes:
    """What ends the script of a ``frame`` and all its children, sent on its stdin."""
    return f"{nonce} stop\n".encode()


def end_process(pid: int) -> str:
    """A script that ends a process and, where it leads one, its whole group."""
    return f"""target=-{pid}
kill -s TERM -- "$target" 2>/dev/null || {{ target={pid}; kill -s TERM "$target"; }}
for _ in 1 2 3 4; do
  kill -s 0 -- "$target" 2>/dev/null || exit 0
  sleep 0.5
done
kill -s KILL -- "$target"
"""


def process_of(nonce: str, stdout: bytes | bytearray) -> int | None:
    """The process id in a begin mark that tells it."""
    found = re.search(rf"{nonce} begin (\d+)".encode(), stdout)
    return int(found[1]) if found else None


def began(nonce: str, stdout: bytes | bytearray) -> int:
    """Where the script's part of stdout begins; -1 while its begin mark has not come."""
    mark = f"{nonce} begin".encode()
    found = stdout.find(mark)
    if found < 0:
        return -1
    end = stdout.find(b"\n", found + len(mark))
    return end + 1 if end >= 0 else -1


def ended(nonce: str, stdout: bytes | bytearray, since: int = 0) -> bool:
    """Whether the end mark stands in stdout from that offset on."""
    mark = end_mark(nonce)
    return stdout.find(mark, max(0, since - len(mark))) >= 0


def end_mark(nonce: str) -> bytes:
    """The last line of an answer."""
    return f"\n{nonce} end\n".encode()


def unframe(nonce: str, stdout: bytes | bytearray) -> Reply | None:
    """The answer that stands whole in stdout; ``None`` when it is cut or torn anywhere."""
    head = f"\n{nonce} reply ".encode()
    found = stdout.find(head)
    if found < 0:
        return None
    line_end = stdout.find(b"\n", found + len(head))
    digits = bytes(stdout[found + len(head) : line_end]) if line_end >= 0 else b""
    if not NUMBER.fullmatch(digits):
        return None
    start = line_end + 1
    stop = start + int(digits)
    end = end_mark(nonce)
    if stdout[stop : stop + len(end)] != end:
        return None
    body, mark, status = bytes(stdout[start:stop]).rpartition(f"\n{nonce} status ".encode())
    if not mark or not NUMBER.fullmatch(status):
        return None
    return Reply(int(status), body)


def why_no_socket(path: str) -> str:
    """A script that prints why a UNIX socket there cannot be opened; nothing if it could be."""
    quoted = shlex.quote(path)
    return f"""p={quoted}
if ! [ -e "$p" ]; then echo "there is no $p"
elif ! [ -S "$p" ]; then echo "$p is not a socket"
elif ! [ -r "$p" ] || ! [ -w "$p" ]; then echo "$(id -un) may not open $p"
fi
"""


def _nonce(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a NUL byte cannot be part of a script")
    return f"cloudai-{secrets.token_hex(8)}"
