"""A controller that answers what a test told it, by the contract of docs/api.md.

A real HTTP server on a real UNIX socket, in a thread of the test.
"""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import cloudai


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Reply:
    """What to answer. ``chunks``: a streamed body; ``cut``: the connection ends without its
    end; ``drop``: it ends without an answer at all."""

    data: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Iterable[bytes] | None = None
    cut: bool = False
    drop: bool = False


Answer = Reply | Callable[[Asked], Reply]


class StubController:
    """Routes are ``"GET /tasks/"``; several answers to one are given in turn, the last again
    and again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.asked: list[Asked] = []
        self.routes: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub._serve(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

            def address_string(self) -> str:
                return "unix"

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass  # clients that leave early are part of the tests

        home.mkdir(mode=0o700, exist_ok=True)
        self._server = Server(str(home / "controller.sock"), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def on(self, route: str, *answers: Answer | Any) -> None:
        """What to answer to a route; plain JSON stands for a success with it."""
        self.routes[route] = [
            one if isinstance(one, Reply) or callable(one) else Reply(one) for one in answers
        ]

    def refuse(self, route: str, error: Any) -> None:
        """Answers an error of ``cloudai.core.errors``."""
        self.on(route, Reply({"error": error.as_json()}, error.http_status))

    def bodies(self, route: str) -> list[Any]:
        return [one.body for one in self.asked if str(one) == route]

    def __enter__(self) -> StubController:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        text = handler.rfile.read(length)
        asked = Asked(
            handler.command,
            unquote(url.path),
            parse_qs(url.query, keep_blank_values=True),
            {name.lower(): value for name, value in handler.headers.items()},
            json.loads(text) if text else None,
        )
        with self._lock:
            self.asked.append(asked)
            answers = self.routes.get(str(asked), [])
            answer = answers.pop(0) if len(answers) > 1 else (answers or [NOT_TOLD])[0]
        reply = answer if isinstance(answer, Reply) else answer(asked)
        _send(handler, reply)


def _send(handler: http.server.BaseHTTPRequestHandler, reply: Reply) -> None:
    handler.close_connection = True
    if reply.drop:
        return
    handler.send_response(reply.status)
    for name, value in {"X-Cloudai-Version": cloudai.__version__, **reply.headers}.items():
        handler.send_header(name, value)
    if reply.chunks is None:
        body = b"" if reply.data is None else json.dumps(reply.data).encode()
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for chunk in reply.chunks:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        handler.wfile.flush()
    if not reply.cut:
        handler.wfile.write(b"0\r\n\r\n")


NOT_TOLD = Reply(
    {
        "error": {
            "code": "failed",
            "message": "the test did not say what to answer to this",
            "hint": "",
            "exit_code": 1,
            "details": {},
        }
    },
    500,
)

TASK_ID = "task-1731629400-k3f9x2"


def make_task(**changes: Any) -> dict[str, Any]:
    """A task as one answer carries it: queued, asked for with the defaults."""
    return {
        "task_id": TASK_ID,
        "user_id": "ann",
        "name": None,
        "docker_image": "alpine:latest",
        "command": "echo hello",
        "req_cpu": 1.0,
        "req_memory": 0.5,
        "req_storage": 1.0,
        "req_gpu": 0.0,
        "status": "queued",
        "reason": "",
        "phase": "",
        "created_at": "2026-01-31T12:00:00.000000Z",
        "started_at": None,
        "completed_at": None,
        "worker_id": None,
        "target": None,
        "container_id": None,
        "gpus": [],
        "exit_code": None,
        "env": [],
        "mounts": [],
        "secrets": [],
        "workdir": None,
        "run_as": None,
        "shm_size": None,
        "time_limit": None,
        "idempotency_key": None,
        "on_lost": "wait",
        "lost_after": 600.0,
        "priority": 50,
        "strategy": None,
        "nodes": [],
        "gpu_model": None,
        "gpu_memory": None,
        "require": [],
        "avoid": [],
        "near": [],
        "apart": [],
        "preemptible": False,
        "retries": 0,
        "retry_on": [],
        "group": None,
        "group_size": 1,
        "group_rank": 0,
        "placement": None,
        "failures": 0,
        "not_before": None,
        "direct": False,
        "docker_run": "docker run -d --cpus 1.0 --memory 512m -- alpine:latest echo hello",
        "worker_seen": {"reachable": True, "since": None},
        "assignments": [],
        "events": [],
        **changes,
    }


def make_assignment(**changes: Any) -> dict[str, Any]:
    return {
        "assignment_id": f"{TASK_ID}.1",
        "number": 1,
        "worker_id": "worker-1",
        "placed_at": "2026-01-31T12:00:01.000000Z",
        "started_at": "2026-01-31T12:00:02.000000Z",
        "ended_at": None,
        "exit_code": None,
        "container_id": "0123456789abcdef0123",
        "gpus": [],
        "reason": "",
        "harvested": False,
        **changes,
    }


def make_running(**changes: Any) -> dict[str, Any]:
    """A task that runs on worker-1."""
    return make_task(
        **{
            "status": "running",
            "worker_id": "worker-1",
            "started_at": "2026-01-31T12:00:02.000000Z",
            "container_id": "0123456789abcdef0123",
            "assignments": [make_assignment()],
            **changes,
        }
    )


def make_ended(status: str = "completed", exit_code: int | None = 0, **changes: Any) -> Any:
    """A task that ran on worker-1 and ended."""
    return make_running(
        status=status,
        exit_code=exit_code,
        completed_at="2026-01-31T12:00:14.000000Z",
        **changes,
    )


def make_worker(**changes: Any) -> dict[str, Any]:
    """A worker as a list carries it: active, without GPUs."""
    return {
        "worker_id": "worker-1",
        "state": "active",
        "reason": "",
        "since": None,
        "host": "10.0.0.11",
        "labels": {},
        "draining": False,
        "cpus": {"total": 16.0, "reserved": 4.0, "free": 12.0},
        "memory": {"total": 62.8, "reserved": 8.0, "free": 50.1, "available": 55.0},
        "storage": {"total": 900.0, "reserved": 10.0, "free": 400.0},
        "gpus": [],
        "gpu_trouble": "",
        "tasks": 2,
        "load": 1.2,
        "engine": {"version": "28.2.2", "storage_limit": "watch", "gpu_runtime": "nvidia"},
        "seen_at": "2026-01-31T12:00:00.000000Z",
        **changes,
    }


def make_gpu(index: int, use: str = "free", **changes: Any) -> dict[str, Any]:
    return {
        "uuid": f"GPU-{index:08}",
        "index": index,
        "model": "NVIDIA A100-SXM4-80GB",
        "memory": 80.0,
        "memory_used": 12.1,
        "utilisation": 93,
        "temperature": 51,
        "mig_parent": None,
        "error": None,
        "use": use,
        "held": 0.0,
        "tasks": [],
        "users": [],
        "processes": [],
        **changes,
    }
