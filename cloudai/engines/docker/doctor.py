"""What the doctor finds on a worker. Pure: a probe and a few facts in, findings with mends out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cloudai.core.errors import EngineFailed
from cloudai.core.model import GIB, EngineFacts, WorkerSight
from cloudai.engines import Finding

SKEW = 5.0
"""Seconds a worker's clock may differ before logs and time limits look wrong."""
LITTLE_DISK = 5 * GIB
OLDEST = (20, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What there is to judge."""

    worker_id: str
    sight: WorkerSight | None
    trouble: EngineFailed | None = None
    """Why there is no sight: Docker's own refusal."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """From the doctor script."""
    asked_at: datetime
    answered_at: datetime


def judge(seen: Examination) -> tuple[Finding, ...]:
    """Every check, in the order in which one would mend them."""
    findings = [_shell(seen), _noise(seen), _docker(seen)]
    findings += [_lock(seen), _secrets(seen)]
    if seen.sight is not None:
        engine = seen.sight.engine
        findings += [_version(engine), *_limits(engine), _storage(engine), _gpus(seen.sight)]
        findings += [_disk(seen.sight), _clock(seen, seen.sight), _machine(seen.sight)]
    return tuple(findings)


def _shell(seen: Examination) -> Finding:
    login = seen.facts.get("login") or (seen.sight.login if seen.sight else "") or "unknown"
    if seen.facts.get("deadlines"):
        return Finding(check="shell", ok=True, found=f"scripts run there as {login}")
    return Finding(
        check="shell",
        ok=False,
        warning=True,
        found=f"scripts run there as {login}; neither timeout nor perl is there to end hung ones",
        mend="install coreutils",
    )


def _noise(seen: Examination) -> Finding:
    first = seen.facts.get("noise", "")[:60]
    if not first:
        return Finding(check="login", ok=True, found="its login shell is quiet")
    return Finding(
        check="login",
        ok=False,
        warning=True,
        found=f"its login shell prints on every command: {first}",
        mend="in its ~/.bashrc, print only where `[ -t 1 ]`; cloudai ignores it, scp does not",
    )


def _docker(seen: Examination) -> Finding:
    if seen.sight is not None:
        return Finding(check="docker", ok=True, found=f"answers at {seen.sight.engine.endpoint}")
    trouble = seen.trouble
    found = trouble.message if trouble else "not asked"
    return Finding(check="docker", ok=False, found=found, mend=trouble.hint if trouble else "")


def _lock(seen: Examination) -> Finding:
    place = seen.facts.get("lock_place", "")
    if not seen.facts.get("flock"):
        return Finding(
            check="lock",
            ok=False,
            found="neither flock nor perl is there: starts cannot be kept apart",
            mend="install util-linux",
        )
    if seen.facts.get("lock_readable"):
        return Finding(check="lock", ok=True, found=f"starts are kept apart by a lock on {place}")
    return Finding(
        check="lock",
        ok=False,
        found=f"{place or 'the folder of the Docker socket'} cannot be read to lock it",
        mend=f"`sudo chmod o+rx {place}`" if place else "put `docker` on the PATH of its logins",
    )


def _secrets(seen: Examination) -> Finding:
    if place := seen.facts.get("secrets_place"):
        return Finding(
            check="secrets", ok=True, found=f"files of secrets are in memory, in {place}"
        )
    return Finding(
        check="secrets",
        ok=False,
        warning=True,
        found="no memory-backed place for them: tasks with --secret are refused there",
        mend="mount a tmpfs on /dev/shm, mode 1777",
    )


def _version(engine: EngineFacts) -> Finding:
    numbers = tuple(int(part) for part in engine.version.split(".")[:2] if part.isdecimal())
    if len(numbers) == 2 and numbers < OLDEST:
        return Finding(
            check="engine",
            ok=False,
            warning=True,
            found=f"Docker Engine {engine.version} is older than cloudai is tested with",
            mend="install Docker Engine 20.10 or newer",
        )
    return Finding(
        check="engine", ok=True, found=f"Docker Engine {engine.version}, cgroup {engine.cgroup}"
    )


def _limits(engine: EngineFacts) -> list[Finding]:
    boot = "boot with `cgroup_enable=memory swapaccount=1`, or use cgroup v2 with delegation"
    return [
        _limit("memory", engine.memory_limit, "tasks are refused there", boot),
        _limit("cpu", engine.cpu_limit, "tasks are refused there", "enable CONFIG_CFS_BANDWIDTH"),
        _limit("swap", engine.swap_limit, "a task may swap past its memory", boot, warning=True),
        _limit("pids", engine.pids_limit, "a task may fork without end", boot, warning=True),
    ]


def _limit(name: str, there: bool, else_: str, mend: str, *, warning: bool = False) -> Finding:
    check = f"{name} limit"
    if there:
        return Finding(check=check, ok=True, found="enforced by the kernel")
    found = f"not enforced by this kernel or Docker: {else_}"
    return Finding(check=check, ok=False, found=found, mend=mend, warning=warning)


def _storage(engine: EngineFacts) -> Finding:
    how = {
        "quota": f"enforced by the storage driver ({engine.storage_driver})",
        "watch": f"{engine.storage_driver} cannot enforce it here: cloudai measures and stops",
    }
    return Finding(check="storage limit", ok=True, found=how[engine.storage_limit])


def _gpus(sight: WorkerSight) -> Finding:
    if sight.gpu_trouble:
        return Finding(
            check="gpus",
            ok=False,
            warning=True,
            found=sight.gpu_trouble,
            mend="run `nvidia-smi` there; a driver that hangs or lost a GPU needs a reboot",
        )
    if not sight.gpus:
        return Finding(check="gpus", ok=True, found="none")
    broken = [f"GPU {gpu.index}: {gpu.error}" for gpu in sight.gpus if gpu.error]
    runtime = sight.engine.gpu_runtime
    if not runtime:
        return Finding(
            check="gpus",
            ok=False,
            found=f"{len(sight.gpus)} seen, and Docker has no NVIDIA runtime to give them to tasks",
            mend="install nvidia-container-toolkit, then `sudo nvidia-ctk runtime configure"
            " --runtime=docker && sudo systemctl restart docker`",
        )
    if broken:
        return Finding(
            check="gpus",
            ok=False,
            warning=True,
            found="; ".join(broken),
            mend="`sudo nvidia-smi --gpu-reset -i N`, or reboot; broken GPUs get no tasks",
        )
    return Finding(check="gpus", ok=True, found=f"{len(sight.gpus)}, given to tasks by: {runtime}")


def _disk(sight: WorkerSight) -> Finding:
    found = (
        f"{sight.disk_free / GIB:.1f} of {sight.disk / GIB:.1f} GB free where Docker keeps its data"
    )
    if sight.disk_free >= LITTLE_DISK:
        return Finding(check="disk", ok=True, found=found)
    mend = "`docker system prune` on the worker removes what no container uses"
    return Finding(check="disk", ok=False, warning=True, found=found, mend=mend)


def _clock(seen: Examination, sight: WorkerSight) -> Finding:
    skew = clock_skew(sight.clock, seen.asked_at, seen.answered_at)
    if abs(skew) <= SKEW:
        return Finding(check="clock", ok=True, found="agrees with this machine's")
    way = "ahead of" if skew > 0 else "behind"
    return Finding(
        check="clock",
        ok=False,
        warning=True,
        found=f"{abs(skew):.0f} s {way} this machine's: times and --since of logs are off by that",
        mend="`sudo timedatectl set-ntp true` on whichever is wrong",
    )


def clock_skew(clock: datetime, asked_at: datetime, answered_at: datetime) -> float:
    """Seconds the worker's clock is ahead (negative: behind); what the round trip could
    explain counts as none."""
    if clock > answered_at:
        return (clock - answered_at).total_seconds()
    return min(0.0, (clock - asked_at).total_seconds())


def _machine(sight: WorkerSight) -> Finding:
    if sight.machine_id:
        return Finding(check="machine id", ok=True, found=sight.machine_id)
    return Finding(
        check="machine id",
        ok=False,
        warning=True,
        found="none: two names for this host could not be told apart",
        mend="`sudo systemd-machine-id-setup`",
    )
