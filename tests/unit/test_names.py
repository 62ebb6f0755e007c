"""Names, and whole groups of tasks, that nobody means: whatever text comes is a plain word or is
refused in words, on one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput
from cloudai.core.groups import FIELDS as GROUP_FIELDS
from cloudai.core.groups import read_group
from cloudai.core.names import (
    LONGEST,
    check_env_name,
    check_run_as,
    check_task_name,
    check_user,
    check_worker_id,
)
from cloudai.core.request import FIELDS

T = TypeVar("T")
Check = Callable[[str], str]


def outcome(call: Callable[[], T]) -> tuple[str, T | None]:
    """Why it was refused, or what came of it."""
    try:
        return "", call()
    except InvalidInput as refused:
        return refused.message, None


hostile = st.one_of(
    st.text(max_size=80),
    st.text("ab1._-@:/$ \n\x00\x1b\u202e\u2066é", max_size=12),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "a", "task-", "group-1-", "../", "-", "\u202e"]),
        st.text("ab1.", max_size=8),
        st.sampled_from(["", "/..", "\n", "\x00", "\u202egpj", "$(x)", "a" * 300, ".", "\x9b2J"]),
    ),
)


@pytest.mark.parametrize(
    ("check", "plain"),
    [
        (check_worker_id, "[A-Za-z0-9][A-Za-z0-9._-]*"),
        (check_task_name, "[A-Za-z0-9][A-Za-z0-9._-]*"),
        (check_user, "[A-Za-z0-9_][A-Za-z0-9._@-]*"),
        (check_env_name, "[A-Za-z_][A-Za-z0-9_]*"),
        (check_run_as, "[A-Za-z0-9_][A-Za-z0-9._:$-]*"),
    ],
)
@given(text=hostile)
@example(text="../../etc/passwd")
@example(text="a" * 300)
@example(text="\u202etxt.exe")
@example(text="a\n")
@example(text="-rf")
def test_what_passes_is_one_plain_word(check: Check, plain: str, text: str) -> None:
    message, name = outcome(lambda: check(text))
    if name is None:
        assert message.isprintable()
        assert len(message) < 400
        return
    assert name == text
    assert re.fullmatch(plain, name)
    assert len(name) <= (255 if check is check_env_name else LONGEST)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile, inner, max_size=3),
    max_leaves=6,
)
tasks = st.lists(
    st.dictionaries(st.sampled_from(FIELDS), json, max_size=3).map(
        lambda body: {"docker_image": "alpine", **body}
    )
    | json,
    max_size=3,
)
groups = st.dictionaries(
    st.sampled_from(sorted(GROUP_FIELDS)), json | st.integers(0, 9), max_size=4
)


@given(groups, tasks | json)
@example({"replicas": 10**9}, [{"docker_image": "alpine"}])
@example({"replicas": True}, [{"docker_image": "alpine"}])
@example({"placement": "\u202e"}, [{"docker_image": "alpine"}])
def test_any_group_is_read_whole_or_refused(body: dict[str, Any], members: Any) -> None:
    whole = {**body, "tasks": members}
    message, read = outcome(lambda: read_group(whole, default_user="ann", group="group-1-a"))
    if read is None:
        assert message.isprintable()
        return
    assert [member.spec.group_rank for member in read] == list(range(len(read)))
    assert {member.spec.group_size for member in read} == {len(read)}
