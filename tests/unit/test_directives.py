"""The lines of a script that say how to run it, and sbatch's options by ours."""

from __future__ import annotations

import contextlib
import shlex
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.directives import Dialect, Directive, read_header, split_words
from cloudai.core.errors import InvalidInput
from cloudai.core.slurm import (
    OPTIONS,
    NotHere,
    parse_begin,
    parse_dependency,
    parse_hosts,
    parse_memory,
    parse_time,
    translate,
)

WORDS = st.lists(st.text(st.characters(exclude_characters="\n\r\0"), min_size=1), max_size=5)


@settings(max_examples=200)
@given(WORDS)
def test_what_a_shell_quotes_is_read_back(words: list[str]) -> None:
    assert split_words(shlex.join(words)) == tuple(words)
    assert split_words(f"{shlex.join(words)} # a comment 'with \"quotes") == tuple(words)


@settings(max_examples=100)
@given(st.text())
def test_any_text_is_words_or_a_mistake_in_words(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(isinstance(word, str) for word in split_words(text))


def test_lines_count_before_the_first_command_and_only_at_the_beginning() -> None:
    header = read_header(
        "#!/bin/bash\n"
        "#CLOUDAI --gpus 2 -e 'A=b c'  # two\n"
        "# a comment\n"
        "\n"
        "#SBATCH -c 4\n"
        "##SBATCH --mem=1G\n"
        " #SBATCH --mem=2G\n"
        "#SBATCHES\n"
        "#CLOUDAI\n"
        "set -e\n"
        "#SBATCH --mem=3G\n",
        source="train.sh",
    )
    # An indented one is no comment at the line's beginning: for sbatch, the first command.
    assert header.directives == (
        Directive(2, Dialect.CLOUDAI, ("--gpus", "2", "-e", "A=b c")),
        Directive(5, Dialect.SBATCH, ("-c", "4")),
    )
    assert [one.line for one in header.late] == [9, 11]


def test_a_mistake_has_its_file_and_line() -> None:
    with pytest.raises(InvalidInput, match=r"^train\.sh:2: a quote is not closed: --name 'x$"):
        read_header("#!/bin/sh\n#CLOUDAI --name 'x\n", source="train.sh")


def flags(*lines: str, cpus: str | None = None) -> list[str]:
    text = "".join(f"#SBATCH {line}\n" for line in lines)
    said = translate(read_header(text, source="f").directives, source="f", cpus=cpus).said
    return [flag for one in said for flag in one.flags]


@pytest.mark.parametrize(
    ("lines", "ours"),
    [
        (["--job-name=train"], ["--name", "train"]),
        (["-J train"], ["--name", "train"]),
        (["-Jtrain"], ["--name", "train"]),
        (["--job=train"], ["--name", "train"]),  # getopt takes what can be only one
        (["--time=90"], ["--time-limit", "5400"]),
        (["-t 1-12"], ["--time-limit", "129600"]),
        (["-t 0"], []),
        (["--cpus-per-task 4"], ["--cpus", "4"]),
        (["--mem=4000"], ["--memory", "4096000k"]),
        (["--mem=16G"], ["--memory", "16777216k"]),
        (["--mem-per-cpu=2G", "-c 4"], ["--cpus", "4", "--memory", "8388608k"]),
        (["--mem-per-cpu=2G"], ["--memory", "2097152k"]),
        (["--mem-per-cpu=2G", "--mem=1G"], ["--memory", "1048576k"]),
        (["--gres=gpu:2"], ["--gpus", "2"]),
        (["--gres=gpu"], ["--gpus", "1"]),
        (["--gres=gpu:a100:2"], ["--gpu", "a100:2"]),
        (["--gres=gpu:a100"], ["--gpu", "a100:1"]),
        (["-G 2"], ["--gpus", "2"]),
        (["--gpus=a100:2"], ["--gpu", "a100:2"]),
        (["--gpus-per-node=1", "--gres=gpu:v100:1"], ["--gpu", "v100:1"]),
        (["-a 0-99%10"], ["--array", "0-99%10"]),
        (["-d afterok:12:13"], ["--dependency", "afterok:12:13"]),
        (["--kill-on-invalid-dep=yes"], ["--on-unmet", "cancel"]),
        (["-b now+1hour"], ["--begin", "now+1hour"]),
        (["--signal=B:USR1@60"], ["--signal", "B:USR1@60"]),
        (["--requeue"], ["--requeue"]),
        (["--requeue", "--no-requeue"], ["--no-requeue"]),
        (["--output=%j.out", "-e err", "--open-mode=append", "--comment='a b'"], []),
        (["-sW"], ["--wait"]),
        (["--test-only"], ["--test-only"]),
        (["-D /work"], ["--workdir", "/work"]),
        (["--export=NONE"], []),
        (["--export=A,B=3"], ["-e", "A", "-e", "B=3"]),
        (["-p gpu,long"], ["--require", "pool in (gpu, long)"]),
        (["-w gpu1"], ["--node", "gpu1"]),
        (["-x gpu[1-2,07]"], ["--avoid", "worker in (gpu1, gpu2, gpu07)"]),
        (["-C 'intel&ssd'"], ["--require", "intel", "--require", "ssd"]),
        (["-N 1", "-n 1", "--ntasks-per-node=1"], []),
        (["--tmp=10G"], ["--storage", "10485760k"]),
        (["-J one", "-J two"], ["--name", "two"]),
        (["-c 4 --mem 1G # -t 5"], ["--cpus", "4", "--memory", "1048576k"]),
    ],
)
def test_sbatchs_options_by_ours(lines: list[str], ours: list[str]) -> None:
    assert flags(*lines) == ours


def test_memory_a_core_follows_the_command_line() -> None:
    assert flags("--mem-per-cpu=1G", "-c 2", cpus="8")[-1] == f"{8 * 2**20}k"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--exclusive", "--exclusive: workers are shared"),
        ("--nice=5", "--priority low"),
        ("-N 2", "-N 2: a task is one container"),
        ("--ntasks=8", "--array or --replicas"),
        ("--mem=0", "say how much"),
        ("--mem=4GG", "--mem=4GG: give MB"),
        ("--export=ALL", "name those it needs"),
        ("--gres=shard:1", "GPUs alone"),
        ("--gres=gpu:1,shard:2", "GPUs alone"),
        ("-A lab", "there are no accounts"),
        ("--mail-type=END", "no mail"),
        ("-w gpu[1-2]", "one node"),
        ("--kill-on-invalid-dep=no", "--on-unmet skip"),
        ("--job-nam", "its value is missing"),
        ("--wait=1", "it takes no value"),
        ("--cpus=1", "could be --cpus-per-"),
        ("--jobname=x", "did you mean --job-name?"),
        ("-Z", "-Z is not known here"),
        ("train", "'train' is no option"),
        ("--", "-- is not known here"),
    ],
)
def test_what_is_not_honoured_is_refused_with_its_place(line: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        flags("-J x", line)
    assert refused.value.message.startswith("f:2: ")
    assert words in refused.value.message


def test_no_option_is_passed_over_in_silence() -> None:
    """Each becomes a flag, a notice or a refusal; or it says what is so anyway."""
    anyway = {"oversubscribe", "nodes", "ntasks", "ntasks-per-node", "mail-type"}
    for name, option in OPTIONS.items():
        value = "" if option.takes == "flag" else "=1"
        text = f"#SBATCH --{name}{value if name != 'mail-type' else '=NONE'}\n"
        try:
            done = translate(read_header(text, source="f").directives, source="f")
        except InvalidInput:
            continue
        assert done.said or done.notices or name in anyway, name


# Slurm's own words: man sbatch, --time and --begin.
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("1:30", 90),
        ("2:00:00", 7200),
        ("1-0", 86_400),
        ("1-2:30", 95_400),
        ("1-2:30:15", 95_415),
        ("UNLIMITED", None),
        ("0", None),
    ],
)
def test_slurms_times(text: str, seconds: int | None) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "1:2:3:4", "1h", "-5", "1-", "a-b"])
def test_no_times(text: str) -> None:
    with pytest.raises(NotHere):
        parse_time(text)


def test_slurms_memory_and_hosts() -> None:
    assert parse_memory("1") == 2**20
    assert parse_memory("2t") == 2**41
    assert parse_hosts("a[09-11]b,c") == ["a09b", "a10b", "a11b", "c"]
    for wrong in ("", "a[1-", "a[x]", "a b", "a[1-9999999]"):
        with pytest.raises(NotHere):
            parse_hosts(wrong)


NOON = datetime(2026, 1, 31, 12, 30)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", "0s"),
        ("now+90", "90s"),
        ("now+1hour", "3600s"),
        ("now+2days", "172800s"),
        ("16:00", "2026-01-31T16:00:00+00:00"),
        ("11:15:30", "2026-02-01T11:15:30+00:00"),
        ("8:00 PM", "2026-01-31T20:00:00+00:00"),
        ("12:15am", "2026-02-01T00:15:00+00:00"),
        ("midnight", "2026-02-01T00:00:00+00:00"),
        ("noon", "2026-02-01T12:00:00+00:00"),
        ("teatime", "2026-01-31T16:00:00+00:00"),
        ("today", "2026-01-31T00:00:00+00:00"),
        ("tomorrow", "2026-02-01T00:00:00+00:00"),
        ("2026-03-01", "2026-03-01T00:00:00+00:00"),
        ("2026-03-01T06:30", "2026-03-01T06:30:00+00:00"),
        ("03/01/26", "2026-03-01T00:00:00+00:00"),
        ("030126", "2026-03-01T00:00:00+00:00"),
        ("2h", "2h"),
        ("2026-03-01T06:30:00Z", "2026-03-01T06:30:00Z"),
    ],
)
def test_slurms_moments(text: str, at: str) -> None:
    assert parse_begin(text, NOON, local=lambda one: one.replace(tzinfo=UTC)) == at


@pytest.mark.parametrize("text", ["25:00", "13:00pm", "2026-02-30", "139926"])
def test_no_moments(text: str) -> None:
    with pytest.raises(InvalidInput, match="there is no such time"):
        parse_begin(text, NOON, local=lambda one: one)


def test_slurms_dependencies() -> None:
    assert parse_dependency("afterok:a:b,afternotok:c,afterany:d,aftercorr:e") == [
        *("a:ok", "b:ok", "c:failed", "d:any", "e[*]:ok")
    ]
    for wrong in ("", "a", "afterok", "afterok:", "afterok:a::b", "after:a", "singleton"):
        with pytest.raises(InvalidInput, match=r"^dependency: "):
            parse_dependency(wrong)
    with pytest.raises(InvalidInput, match="all must be met"):
        parse_dependency("afterok:a?afterok:b")
