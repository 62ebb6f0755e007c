"""Answers as they may come over the socket, whole and cut at every byte."""

from __future__ import annotations

import io
import socket

import pytest

from cloudai.client.http import Cut, Response, send

HEAD = b"HTTP/1.1 200 OK\r\nServer: stub\r\nX-Cloudai-Version:  1 \r\n"
CHUNKED = (
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n\r\n"
)
WHOLE = HEAD + b"content-length: 5\r\n\r\n12345"


def response(answer: bytes) -> Response:
    return Response(io.BufferedReader(io.BytesIO(answer)))


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (WHOLE, b"12345"),
        (CHUNKED, b"abc0123456789abcdef"),
        (HEAD + b"\r\nto the end", b"to the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_a_body_is_read_however_its_end_is_told(answer, body):
    got = response(answer)
    assert (got.status, got.read()) == (204 if not body else 200, body)


def test_headers_are_found_by_their_names_in_lower_case():
    assert response(WHOLE).headers["x-cloudai-version"] == "1"


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED])
def test_one_that_is_cut_anywhere_is_not_taken_for_whole(answer):
    for end in range(len(answer)):
        with pytest.raises(Cut):
            response(answer[:end]).read()


def test_what_is_no_http_is_refused():
    for answer in (b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 fine\r\n\r\n", HEAD[:-2] + b" " * 70000):
        with pytest.raises(Cut):
            response(answer)
    with pytest.raises(Cut, match="size"):
        response(HEAD + b"Transfer-Encoding: chunked\r\n\r\nmany\r\n").read()


def test_a_request_says_its_length_and_that_it_is_the_only_one():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, "POST", "/tasks/?a=b", headers={"X-One": "1"}, body=b"{}")
        assert theirs.recv(1000) == (
            b"POST /tasks/?a=b HTTP/1.1\r\nHost: controller\r\nConnection: close\r\n"
            b"X-One: 1\r\nContent-Length: 2\r\n\r\n{}"
        )
