"""A shipped task type on a real worker, on a stand-in with the interface of its public image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudai.tasktypes import TaskTypes
from tests.fleet.cloudai_home import Home
from tests.fleet_lab import Fleet, Worker, image

LLAMA_CLI = r"""#!/bin/sh
# What llama-cli is told by the template, and no more: anything else is an error.
model= prompt= predict= single=
while [ $# -gt 0 ]; do
    case $1 in
    -hf) model=$2; shift 2 ;;
    --prompt) prompt=$2; shift 2 ;;
    --predict) predict=$2; shift 2 ;;
    --n-gpu-layers | --ctx-size | --temp | --seed | --system-prompt) shift 2 ;;
    --single-turn) single=yes; shift ;;
    --no-display-prompt | --no-escape) shift ;;
    *) echo "error: invalid argument: $1" >&2; exit 1 ;;
    esac
done
[ -n "$model" ] && [ -n "$prompt" ] && [ "$single" = yes ] || exit 1
printf '%s answers in at most %s tokens, models in %s:\n' "$model" "$predict" "$LLAMA_CACHE"
printf '%s' "$prompt"
"""
PROMPT = 'Say "hi" to O\'Neil; $(id) `id` {{ x }}\n- a: b\n'


@pytest.fixture
def worker(mended_fleet: Fleet) -> Iterator[Worker]:
    """The one with GPUs, with the stand-in under the name of the image."""
    kind, _ = TaskTypes(Path("/none")).find("llm")
    name = str(kind.task["image"])
    found = mended_fleet.gpu_worker
    with found.engine() as client:
        image.load_program(client, name, "app/llama-cli", LLAMA_CLI)
    yield found
    found.remove_containers()
    with found.engine() as client:
        client.images.remove(name, force=True)


def test_a_prompt_goes_in_and_the_answer_is_the_log(
    home: Home, worker: Worker, tmp_path: Path
) -> None:
    home.know_only(worker)
    (tmp_path / "prompt").write_text(PROMPT)
    little = ("--cpus", "0.1", "-mem", "32m", "-storage", "32m", "--shm-size", "16m")
    asked = ("--type", "llm", "-p", f"prompt=@{tmp_path / 'prompt'}", "-p", "max_tokens=128")
    done = home.run("task", *asked, *little, "--gpu-memory", "1", "--name", "ask", "-q", "--follow")
    answer = "ggml-org/gemma-3-4b-it-GGUF answers in at most 128 tokens, models in /cache:\n"
    assert done.text == answer + PROMPT
    task = home.ask("/tasks/ask")
    assert (task["status"], task["task_type"], len(task["gpus"])) == ("completed", "llm", 1)
    assert [one["name"] for one in home.ask("/tasks/?task_type=llm")["tasks"]] == ["ask"]
    assert "Type           llm\n" in home.run("show", "ask").text
