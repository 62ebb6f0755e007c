"""Examples of what may be sent, for the OpenAPI page. Validation has its home in
``core.request``: the same for every door."""

from __future__ import annotations

from fastapi.openapi.models import Example

TASK_EXAMPLES: dict[str, Example] = {
    "smallest": Example(value={"docker_image": "alpine", "argv": ["echo", "hello"]}),
    "training": Example(
        value={
            "docker_image": "pytorch/pytorch:latest",
            "command": "python train.py --epochs 10",
            "req_cpu": 4.0,
            "req_memory": "16g",
            "req_storage": 20.0,
            "req_gpu": 1.0,
            "name": "train",
            "env": {"WANDB_MODE": "offline"},
            "mounts": ["type=bind,src=/data,dst=/data,readonly"],
            "shm_size": "2g",
            "time_limit": "8h",
            "idempotency_key": "nightly-2026-01-31",
        }
    ),
    "task type": Example(
        value={"task_type": "llm", "parameters": {"prompt": "Why is the sky blue?"}}
    ),
}

RENDER_EXAMPLES: dict[str, Example] = {
    "parameters": Example(value={"parameters": {"prompt": "Why is the sky blue?"}}),
}

GROUP_EXAMPLES: dict[str, Example] = {
    "replicas": Example(
        value={
            "placement": "strict_spread",
            "replicas": 4,
            "tasks": [{"docker_image": "pytorch/pytorch:latest", "req_gpu": 1.0}],
        }
    ),
}

BATCH_EXAMPLES: dict[str, Example] = {
    "a sweep": Example(
        value={
            "files": [
                {
                    "name": "sweep.yaml",
                    "format": "yaml",
                    "text": "defaults: {image: python:3.12}\n"
                    "tasks:\n"
                    "- name: train-{{ lr }}\n"
                    "  matrix: {lr: [0.1, 0.01]}\n"
                    "  command: python train.py --lr {{ lr }}\n",
                }
            ],
            "set": {},
            "once_key": "nightly-{{ date }}",
        }
    ),
}

SCHEDULE_EXAMPLES: dict[str, Example] = {
    "every night": Example(
        value={
            "line": "0 2 * * *",
            "zone": "Europe/Berlin",
            "files": ["/home/ann/nightly.yaml"],
            "set": {"epochs": "5"},
            "missed": "once",
        }
    ),
}

RESERVATION_EXAMPLES: dict[str, Example] = {
    "for a user": Example(
        value={"worker_id": "gpu1", "req_cpu": 2.0, "req_gpu": 1.0, "user_id": "ann", "for": "4h"}
    ),
    "for a priority": Example(
        value={"worker_id": "gpu1", "req_gpu": 2.0, "priority": "high", "note": "the demo"}
    ),
}
