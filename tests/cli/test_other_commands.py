"""facts, explain, jobs and diagnose from their options to their exit codes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from dsdoctor.checks.catalogue import catalogue
from dsdoctor.facts import HostFacts
from dsdoctor.logs.rules import load_rules
from tests.cli.conftest import run

FAILED = """\
step 1 loss 2.3
[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 7, in <module>
[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 31.74 GiB
"""


# --- facts


def test_facts_of_this_machine() -> None:
    result = run("facts", "--section", "python", "--section", "limits")
    assert result.exit_code == 0
    assert result.stdout.startswith("localhost\n")
    assert "  python\n" in result.stdout
    assert "  os\n" not in result.stdout


def test_facts_as_json(healthy: Path) -> None:
    body = json.loads(run("facts", "--facts", healthy, "--format", "json", "--section", "os").stdout)
    assert body["schema"] == "dsdoctor.hosts/1"
    assert [host["name"] for host in body["hosts"]] == ["n1", "n2"]
    assert [list(snapshot["sections"]) for snapshot in body["snapshots"]] == [["os"], ["os"]]


def test_facts_text_has_every_section_and_cuts_long_lists(healthy: Path) -> None:
    text = run("facts", "--facts", healthy).stdout
    for section in json.loads((healthy / "n1.json").read_text())["sections"]:
        assert f"\n  {section}\n" in text
    whole = run("facts", "--facts", healthy, "--section", "cpu").stdout
    assert " more" not in whole


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--section", "pakages"], "did you mean packages?"),
        (["--section", "zzz"], "there are: os, python"),
        (["--facts", "no-such-folder"], "no-such-folder"),
        (["--facts", "."], "no snapshot"),
    ],
)
def test_facts_usage(arguments: list[str], words: str) -> None:
    result = run("facts", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_facts_redacted(healthy: Path) -> None:
    result = run("facts", "--facts", healthy, "--redact", "--format", "json")
    assert result.exit_code == 0
    assert "alice" in (healthy / "n1.json").read_text()
    assert "alice" not in result.stdout


def test_redacted_facts_keep_no_word_about_a_lost_host(healthy: Path, tmp_path: Path) -> None:
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("secret-name slots=8\nn1 slots=8\n")
    result = run("facts", "--facts", healthy, "--hostfile", hostfile, "--redact", "--format", "json")
    assert result.exit_code == 3
    assert "secret-name" not in result.stdout
    hosts = json.loads(result.stdout)["hosts"]
    assert [host["reachable"] for host in hosts] == [False, True]


def test_a_section_that_failed_says_why(healthy: Path) -> None:
    path = healthy / "n1.json"
    snapshot = json.loads(path.read_text())
    snapshot["sections"]["gpu"] = {"error": "the driver\x1b[2J hangs", "seconds": 1.0}
    path.write_text(json.dumps(snapshot))
    text = run("facts", "--facts", path, "--section", "gpu").stdout
    assert "gpu: not known, the driver\\x1b[2J hangs" in text


def test_every_section_of_the_probe_can_be_asked_for() -> None:
    words = [word for section in HostFacts.sections() for word in ("--section", section)]
    result = run("facts", *words)
    assert result.exit_code == 0
    for section in HostFacts.sections():
        assert f"\n  {section}" in result.stdout


# --- explain


@pytest.mark.parametrize("name", [page.name for page in catalogue()])
def test_every_check_has_a_page(name: str) -> None:
    result = run("explain", name)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{name} – check, ")
    for heading in ("Why it matters", "How to fix it", "Example"):
        assert f"\n{heading}\n" in result.stdout
    assert f"dsdoctor check --ignore {name}" in result.stdout
    prose = [line for line in result.stdout.split("\n") if not line.startswith("        ")]  # commands are not wrapped
    assert max(map(len, prose)) <= 96


@pytest.mark.parametrize("name", sorted(load_rules().rules))
def test_every_rule_has_a_page(name: str) -> None:
    result = run("explain", name)
    assert result.exit_code == 0
    assert "rule of diagnose" in result.stdout
    assert "\nWhy\n" in result.stdout
    assert "Told by lines with" in result.stdout


def test_explain_all_lists_both() -> None:
    output = run("explain", "--all").stdout
    listed = {line.split()[0] for line in output.splitlines() if line and not line.startswith(("Checks", "Rules"))}
    assert listed == {page.name for page in catalogue()} | set(load_rules().rules)
    assert run("explain").stdout == output


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("duplicate_nccl", None),
        ("Duplicate-NCCL", None),
        ("duplicat-nccl", "did you mean duplicate-nccl"),
        ("bf16", "bf16-unsupported"),
        ("qqqqqq", "dsdoctor explain --all"),
        ("", "dsdoctor explain --all"),
        ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
    ],
)
def test_explain_names(name: str, words: str | None) -> None:
    result = run("explain", name)
    assert result.exit_code == (0 if words is None else 2)
    assert words is None or words in result.stderr
    assert "\x1b" not in result.output


def test_explain_takes_a_name_or_all() -> None:
    assert run("explain", "--all", "duplicate-nccl").exit_code == 2


# --- jobs


def test_shipped_jobs_are_listed() -> None:
    output = run("jobs").stdout
    assert output.startswith("order_1  ") or "\norder_1  " in output
    assert "stages: dbpedia → amazon → yahoo → agnews" in output
    assert "(default)" in output


def test_a_profile_of_some_stages_says_which() -> None:
    output = run("jobs").stdout
    part = output[output.index("order_6  ") :]
    assert "stages: yelp → amazon → IMDB → SST-2 → dbpedia → agnews → yahoo\n" in part


def test_local_jobs_come_first_and_broken_ones_are_told() -> None:
    folder = Path("launch")
    folder.mkdir()
    (folder / "mine.yaml").write_text('name: mine\ndescription: "a\\e[31mb"\nscript: a.py\nstages: [{name: one}]\n')
    (folder / "broken.yaml").write_text("name: [\n")
    result = run("jobs")
    assert result.exit_code == 2
    assert "launch/broken.yaml" in result.stderr
    assert "mine  launch/mine.yaml\n  a\\x1b[31mb\n  starts a.py (engine torchrun)\n  stages: one\n" in result.stdout
    assert "order_1" in result.stdout


# --- diagnose


def test_a_failed_log_from_a_file_and_from_standard_input(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text(FAILED)
    by_file = run("diagnose", log)
    assert by_file.exit_code == 1
    assert by_file.stdout.startswith("✗ cuda-oom (")
    assert "rank 1" in by_file.stdout.splitlines()[0]
    for arguments in ([], ["-"]):
        piped = run("diagnose", *arguments, "--format", "json", input=FAILED)
        assert piped.exit_code == 1
        assert piped.stderr == ""
        verdict = json.loads(piped.stdout)["verdict"]
        assert (verdict["cause"], verdict["rank"], verdict["line"]) == ("cuda-oom", 1, 4)


def test_a_log_without_a_line_is_not_called_well(tmp_path: Path) -> None:
    packed = tmp_path / "nothing.log.gz"
    packed.write_bytes(gzip.compress(b""))
    for arguments, name in (((), "standard input"), ((str(packed),), "nothing.log.gz")):
        result = run("diagnose", *arguments, input="")
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{name}: there is nothing in it" in result.stderr


def test_a_healthy_log_is_well() -> None:
    result = run("diagnose", input="step 1 loss 2.3\nstep 2 loss 2.1\ndone\n")
    assert result.exit_code == 0
    assert result.stdout.startswith("✓ Nothing is wrong here.\n")


@pytest.mark.parametrize("form", ["text", "json", "markdown", "html", "junit", "sarif"])
def test_every_format(tmp_path: Path, form: str) -> None:
    result = run("diagnose", "--format", form, "--output", tmp_path / "out", input=FAILED)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cuda-oom" in (tmp_path / "out").read_text()


def test_control_characters_of_a_log_do_not_reach_the_screen() -> None:
    result = run("diagnose", input=FAILED.replace("2.00 GiB", "2.00\x1b]0;owned\x07 GiB\x9b2J"))
    assert result.exit_code == 1
    assert not [c for c in result.output if (c < " " and c != "\n") or "\x7f" <= c <= "\x9f"]


@pytest.mark.parametrize("arguments", [["no-such.log"], ["--rules", "no-such"], ["--facts", "no-such"], ["."]])
def test_what_cannot_be_read_is_told(arguments: list[str]) -> None:
    result = run("diagnose", *arguments, input=FAILED)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert arguments[-1] in result.stderr


def test_facts_are_weighed_in(ill: Path) -> None:
    text = "ncclInvalidArgument: Invalid value for an argument.\nInvalid config blocking attribute value -2147483648\n"
    result = run("diagnose", "--facts", ill, input=text)
    assert "duplicate-nccl" in result.stdout


def test_facts_of_a_run_are_found_by_themselves(ill: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "logs").mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    ill.rename(folder / "facts")
    text = "ncclInvalidArgument: Invalid value for an argument.\nInvalid config blocking attribute value -2147483648\n"
    (folder / "logs" / "merged.log").write_text(text)
    assert "duplicate-nccl" in run("diagnose", folder).stdout


def test_how_to_paste_is_said_to_people_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("diagnose", input="done").stderr == ""
    monkeypatch.setattr("dsdoctor.terminal.is_terminal", lambda stream: True)
    assert "Ctrl-D" in run("diagnose", input="").stderr


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("peer-unreachable", " --network"),
        ("gpu-copy-slow", " --deep"),
        ("missing-input", " --job JOB"),
        ("low-shm", ""),
    ],
)
def test_explain_says_how_a_check_is_run_alone(name: str, option: str) -> None:
    assert f"dsdoctor check --select {name}{option}\n" in run("explain", name).stdout
