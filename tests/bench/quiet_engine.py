"""An engine on a UNIX socket that has no containers and tells no events: ``… SOCKET``."""

from __future__ import annotations

import asyncio
import re
import sys


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = re.sub(rb"^/v[0-9.]+", b"", head.split(b" ", 2)[1].partition(b"?")[0])
            body = b"OK" if path == b"/_ping" else b"[]"
            length = f"Content-Length: {len(body)}".encode()
            if path == b"/events":
                body, length = b"", b"Transfer-Encoding: chunked"
            kind = b"text/plain" if path == b"/_ping" else b"application/json"
            kind = b"Content-Type: " + kind + b"\r\nApi-Version: 1.41\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\n" + kind + length + b"\r\n\r\n" + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _main(path: str) -> None:
    async with await asyncio.start_unix_server(_serve, path, backlog=2000) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
