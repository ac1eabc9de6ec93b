"""The same failures in every form in which a person may have them: collectors' records, listings, pages, encodings."""

import html
import json
import unicodedata
from collections.abc import Callable

import pytest

from dsdoctor.logs.diagnose import diagnose
from dsdoctor.report.model import Verdict
from tests.logs.test_cases import CASES, RULES, accepted, points_at

# Every seventh case, and those that hang on single lines before and after each other.
SOME = [*list(CASES)[::7], "043-missing-cuda-home-minimind", "121-hf-offline-proxy-kohya-multigpu"]
POD = "llm-worker-1"

Form = Callable[[str], str]


def verdict_of(data: bytes, name: str = "train.log") -> Verdict:
    verdict = diagnose([(name, [data])], RULES).verdict
    assert verdict is not None
    return verdict


def stamp(number: int) -> str:
    return f"2026-11-22T02:{number // 60 % 60:02d}:{number % 60:02d}.000000000Z"


def each(change: Callable[[int, str], str]) -> Form:
    return lambda log: "\n".join(change(number, line) for number, line in enumerate(log.splitlines()))


def record(**fixed: object) -> Callable[[str], Form]:
    """A record a line; the line stands under the key that is named next."""

    def under(key: str) -> Form:
        return each(lambda number, line: json.dumps({"time": stamp(number), **fixed, key: line}))

    return under


def nested(number: int, line: str) -> str:
    inner = json.dumps({"event": line, "level": "info", "timestamp": stamp(number), "rank": 1})
    return json.dumps({"log": inner + "\n", "stream": "stderr", "time": stamp(number)})


def events(log: str) -> str:
    lines = [{"timestamp": 1795315376000 + n, "message": line} for n, line in enumerate(log.splitlines())]
    return json.dumps({"events": lines}, indent=4)


RECORDS: dict[str, Form] = {
    "docker": each(lambda n, line: json.dumps({"log": line + "\n", "stream": "stderr", "time": stamp(n)})),
    "docker of structlog": each(nested),
    "fluentd": record(kubernetes={"pod_name": POD, "namespace_name": "ml", "host": "gke-1"})("log"),
    "filebeat": record(kubernetes={"pod": {"name": POD}, "node": {"name": "gke-1"}})("message"),
    "cloud logging": record(resource={"labels": {"pod_name": POD}}, insertId="x")("textPayload"),
    "logcli": record(labels={"pod": POD})("line"),
    "journald": record(_HOSTNAME="node1", PRIORITY="6")("MESSAGE"),
    "structlog": record(level="info")("event"),
    "zap, with what JSON has not": each(lambda n, line: json.dumps({"msg": line, "value": float("nan")})),
}
LISTINGS: dict[str, Form] = {
    "cat -n": each(lambda n, line: f"{n + 1:6d}\t{line}"),
    "less -N": each(lambda n, line: f"{n + 1:7d} {line}"),
    "grep -n": each(lambda n, line: f"{n + 1}:{line}"),
    "a viewer on the web": each(lambda n, line: f"{n + 120} {line}"),
    "quoted": each(lambda n, line: f"> {line}"),
    "quoted tightly": each(lambda n, line: f">{line}"),
    "github actions": each(lambda n, line: f"{stamp(n)} {line}"),
    "a file of the kubelet": each(lambda n, line: f"{stamp(n)} stderr F {line}"),
    "stern": each(lambda n, line: f"{POD} pytorch {line}"),
    "kubetail": each(lambda n, line: f"[{POD} pytorch] {line}"),
    "swarm": each(lambda n, line: f"train.1.w8x5q9k2@node1    | {line}"),
    "journal": each(lambda n, line: f"Nov 22 02:45:51 node1 train[1234]: {line}"),
    "sagemaker": each(lambda n, line: f"[1,mpirank:1,algo-2]<stderr>:{line}"),
    "mpirun with times": each(lambda n, line: f"Sun Nov 22 02:46:26 2026[1,0]<stderr>:{line}"),
}
DOCUMENTS: dict[str, Form] = {
    "an issue's page": lambda log: (
        "<!DOCTYPE html>\n<html><head><title>CUDA out of memory</title><script>\nvar a = '<pre>';\n</script></head>"
        f'<body><p>It failed:</p>\n<div><pre class="notranslate"><code>{html.escape(log)}\n</code></pre></div></body>'
    ),
    "details": lambda log: f"Title\n<details>\n<summary>Log</summary>\n\n```\n{log}\n```\n\n</details>\n",
    "a console in HTML": lambda log: (
        "<html><body><div>"
        + "<br>\n".join(f'<span class="t">{html.escape(line)}</span>' for line in log.splitlines())
        + "</div></body></html>"
    ),
    "a notebook": lambda log: json.dumps(
        {
            "cells": [
                {
                    "cell_type": "code",
                    "execution_count": 3,
                    "outputs": [{"output_type": "stream", "text": [line + "\n" for line in log.splitlines()]}],
                    "source": ["raise RuntimeError('CUDA out of memory')"],
                }
            ],
            "nbformat": 4,
        },
        indent=1,
    ),
}
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "utf-16": lambda log: log.encode("utf-16"),
    "utf-16 without a mark": lambda log: log.encode("utf-16-le"),
    "big endian": lambda log: log.encode("utf-16-be"),
    "gbk": lambda log: ("训练开始：请稍候\n" + log).encode("gb18030", "replace"),
    "latin-1": lambda log: ("für Größe\n" + log).encode("latin-1", "replace"),
    "8-bit text behind utf-16": lambda log: ("start\r\n" * 3).encode("utf-16") + log.encode(),
    "utf-16 behind 8-bit text": lambda log: b"started by a batch file\r\n" * 40 + log.encode("utf-16-le"),
    "colours": lambda log: "".join(
        f"\x1b[1;31m{line[:3]}\x1b[0m{line[3:]}\x1b[K\r\n" for line in log.split("\n")
    ).encode(),
}


@pytest.mark.parametrize("form", [*RECORDS, *LISTINGS, *DOCUMENTS])
def test_the_cause_and_its_line_are_found_in_any_form(form: str) -> None:
    change = {**RECORDS, **LISTINGS, **DOCUMENTS}[form]
    for name in SOME:
        case = CASES[name]
        verdict = verdict_of(change(case["log"]).encode())
        assert verdict.cause in accepted(case), name
        assert points_at(verdict, case) or name.startswith("189"), name


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_cause_is_found_in_any_encoding(encoding: str) -> None:
    for name in SOME:
        assert verdict_of(ENCODINGS[encoding](CASES[name]["log"])).cause in accepted(CASES[name]), name


def test_events_of_cloudwatch_as_its_command_prints_them() -> None:
    for name in SOME:
        assert verdict_of(events(CASES[name]["log"]).encode()).cause in accepted(CASES[name]), name


@pytest.mark.parametrize(
    ("form", "host", "rank"),
    [
        ("fluentd", POD, None),
        ("filebeat", POD, None),
        ("cloud logging", POD, None),
        ("logcli", POD, None),
        ("journald", "node1", None),
        ("docker of structlog", None, 1),
        ("stern", POD, None),
        ("kubetail", POD, None),
        ("swarm", "node1", None),
        ("journal", "node1", None),
        ("sagemaker", "algo-2", 1),
    ],
)
def test_the_host_is_the_one_that_the_collector_names(form: str, host: str | None, rank: int | None) -> None:
    change = {**RECORDS, **LISTINGS}[form]
    verdict = verdict_of(change("step 1\nRuntimeError: CUDA out of memory. Tried to allocate 2 GiB").encode())
    assert (verdict.cause, verdict.host, verdict.rank) == ("cuda-oom", host, rank)


@pytest.mark.parametrize("form", ["docker", "cat -n", "journal", "quoted"])
def test_numbers_of_lines_are_those_of_the_source(form: str) -> None:
    log = "\n".join(["step 1"] * 40 + ["RuntimeError: CUDA out of memory. Tried to allocate 2 GiB"] + ["x"] * 3)
    assert verdict_of({**RECORDS, **LISTINGS}[form](log).encode()).line == 41


def test_a_record_with_a_whole_traceback_is_one_line_of_the_source() -> None:
    traceback = 'Traceback (most recent call last):\n  File "t.py", line 3, in f\nValueError: \x1b[31mthat is it\x1b[0m'
    lines = [json.dumps({"message": "step", "level": "INFO"})] * 5
    lines.append(json.dumps({"message": "failed", "exc_info": traceback, "rank": 2, "hostname": "node7"}))
    verdict = verdict_of("\n".join(lines).encode())
    assert (verdict.cause, verdict.host, verdict.rank, verdict.line) == ("training-script-exception", "node7", 2, 6)
    assert verdict.text == "node7:2| ValueError: that is it"


def test_a_record_in_the_midst_of_a_large_log_is_read() -> None:
    plain = b"{'loss': 1.0, 'learning_rate': 1e-05, 'epoch': 0.1}\n" * 20_000
    line = json.dumps({"message": "Traceback (most recent call last):\nx\nRuntimeError: CUDA out of memory. Tried"})
    verdict = verdict_of(plain + line.encode() + b"\n" + plain[:200])
    assert (verdict.cause, verdict.line) == ("cuda-oom", 20_001)


@pytest.mark.parametrize(
    "row",
    [
        '{"text": "a row of a data set", "id": 3}',
        '{"instruction": "explain", "output": "fine"}',
        '{"zero_optimization": {"stage": 2}, "fp16": {"enabled": "auto"}}',
        '{"loss": 1.0, "epoch": 0.1}',
        "{'log': 1}",
        '{"log": 1, "message": null}',
        '{"message": ',
        '{"message": {"message": {"message": {"message": {"message": "deep"}}}}}',
        '[{"message": 1}]',
        "{" * 100_000,
        '{"message": ' + "[" * 100_000,
    ],
)
def test_what_is_no_record_stays_as_it_is(row: str) -> None:
    text = f"before\n{row}\nOSError: [Errno 28] No space left on device\n"
    verdict = verdict_of(text.encode())
    assert (verdict.cause, verdict.line) == ("disk-full", 3)


# --- lists of lines that only look numbered


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        ("\n".join(f"{rank}: step 1" for rank in range(8)) + "\n8: RuntimeError: CUDA out of memory.", 8),  # srun
        ("1 0.53\n2 0.51\n3 0.50\n4 0.49\nRuntimeError: CUDA out of memory.", None),
    ],
)
def test_labels_of_tasks_are_no_numbers_of_lines(text: str, rank: int | None) -> None:
    verdict = verdict_of(text.encode())
    assert (verdict.cause, verdict.rank) == ("cuda-oom", rank)


# --- documents


def test_indented_blocks_of_markdown_are_judged_each_by_itself() -> None:
    log = "    RuntimeError: CUDA out of memory. Tried to allocate 2 GiB"
    other = "    OSError: [Errno 28] No space left on device"
    notes = f"# Notes\n\nFirst:\n\n{log}\n    at step 3\n\nThen, another day:\n\n{other}\n\nThat was it.\n"
    report = diagnose([("notes.md", [notes.encode()])], RULES)
    assert [finding.name for finding in report.findings] == ["cuda-oom", "disk-full"]
    assert [finding.evidence[0].line for finding in report.findings] == [5, 10]


def test_tildes_fence_too_and_nothing_in_a_fence_is_an_indented_block() -> None:
    notes = "# A\n\n~~~\nx\n\n    OSError: [Errno 28] No space left on device\n~~~\n\n```\nfine\n```\n"
    report = diagnose([("notes.md", [notes.encode()])], RULES)
    assert report.verdict is not None and (report.verdict.cause, report.verdict.line) == ("disk-full", 6)


def test_scripts_and_tags_of_a_page_are_no_text() -> None:
    page = (
        "<html><head><title>x</title></head><body>\n<script>\nthrow 'OSError: [Errno 28] No space left on device'\n"
        "</script><!-- Killed --><style>a{}</style>\n<pre>step 1\n<b>RuntimeError</b>: CUDA out of memory. "
        "Tried to allocate &lt;2&nbsp;GiB&gt;</pre>"
    )
    verdict = verdict_of(page.encode(), "page.html")
    assert (verdict.cause, verdict.line) == ("cuda-oom", 6)
    assert verdict.text is not None and "allocate <2" in verdict.text


@pytest.mark.parametrize(
    "broken", ["<html><script>", "<html><!--", "<html><pre><pre></pre>" + "<" * 1000, "<html>" * 999]
)
def test_a_broken_page_has_an_answer(broken: str) -> None:
    assert verdict_of(broken.encode(), "page.html").cause == "none"


@pytest.mark.parametrize(
    "broken",
    [
        '{"cells": [], "nbformat": 4}',
        '{"cells": [{"outputs": [{"text": "RuntimeError"}]}, 3, null], "nbformat": 4',
        '{"nbformat": 4, "cells": [{"outputs": 3}, {"outputs": [3, {"text": {"a": 1}}, {"data": []}]}]}',
        '{"nbformat": 3, "worksheets": [{"cells": [{"outputs": [{"text": ["a"]}], "prompt_number": 1}]}]}',
        '{"nbformat": 4, "cells": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
)
def test_a_broken_notebook_has_an_answer(broken: str) -> None:
    assert verdict_of(broken.encode()).cause in ("none", "unknown")


# --- terminals


def columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def as_a_terminal_shows(log: str, width: int) -> str:
    rows: list[str] = []
    for line in log.expandtabs(8).splitlines():
        row, used = "", 0
        for character in line:
            if used + columns(character) > width:
                rows.append(row)
                row, used = "", 0
            row, used = row + character, used + columns(character)
        rows.append(row.rstrip())
    return "\n".join(rows)


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
def test_a_paste_of_a_terminal_of_any_width(width: int) -> None:
    for name in SOME:
        verdict = verdict_of(as_a_terminal_shows(CASES[name]["log"], width).encode())
        assert verdict.cause in accepted(CASES[name]), name


def test_what_powershell_makes_of_standard_error() -> None:
    log = (
        "python : Traceback (most recent call last):\r\nAt line:1 char:1\r\n+ python train.py *> train.log\r\n"
        "+ ~~~~~~~~~~~~~~~~~~~~~~~~~~\r\n    + CategoryInfo          : NotSpecified: (Traceback (most recent call last)"
        "::String) [], RemoteException\r\n    + FullyQualifiedErrorId : NativeCommandError\r\n \r\n"
        '  File "C:\\train\\train.py", line 5, in <module>\r\n    main()\r\n'
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\r\n"
    )
    verdict = verdict_of(log.encode("utf-16"))
    assert (verdict.cause, verdict.line) == ("cuda-oom", 10)
    unknown = verdict_of(
        log.replace("torch.cuda.OutOfMemoryError: CUDA out of memory", "KeyError: 'x'").encode("utf-16")
    )
    assert (unknown.cause, unknown.line) == ("training-script-exception", 10)


def test_two_lines_of_one_length_are_not_joined_by_chance() -> None:
    widest = "0: slurmstepd-node1: error: StepId=3.0 exceeded memory limit (397533184 > 314572800), being killed"
    verdict = verdict_of(f"step\n{widest}\nslurmstepd-node1: error: Exceeded job memory limit\n".encode())
    assert verdict.text == widest
