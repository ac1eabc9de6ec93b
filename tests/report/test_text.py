"""The report as people read it, compared as whole text."""

import re
import unicodedata

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot

from dsdoctor.report.layout import Look
from dsdoctor.report.model import (
    Crashed,
    Evidence,
    Finding,
    Fix,
    HostState,
    Report,
    Severity,
    Skipped,
    Verdict,
)
from dsdoctor.report.text import render
from tests.report.reports import DIAGNOSED, HEALTHY, ILL, NONE, UNKNOWN

PLAIN = Look()


def test_ill_cluster() -> None:
    assert render(ILL, PLAIN) == snapshot("""\
✗ 2 errors, 1 warning on 3 of 4 hosts; gpu03 could not be examined; 1 check crashed.
  job order_1 from launch/order_1.yaml

✗ error duplicate-nccl  gpu[01-02]
  gpu[01-02]: 2 owners of libnccl.so.2 (nvidia-nccl-cu11 2.14.3, nvidia-nccl-cu12 2.18.1); one wanted
  │ gpu01: nvidia-nccl-cu11==2.14.3 in /opt/env/lib/python3.10/site-packages
  │ gpu02: nvidia-nccl-cu11==2.14.3 in /opt/env/lib/python3.10/site-packages
  Fix: Take out both, then put back the one that torch asks for
      python -m pip uninstall -y nvidia-nccl-cu11 nvidia-nccl-cu12
      python -m pip install --no-deps nvidia-nccl-cu12==2.18.1

✗ error unreachable-host  gpu03
  gpu03: nothing listens at port 22
  │ ssh: ssh: connect to host gpu03 port 22: Connection refused
  Fix: Start sshd on the host
      sudo systemctl start sshd

! warning low-open-files  gpu04
  gpu04: 1024 open files are allowed in a non-interactive session; 65536 are wanted
  Fix: Raise the limit for this session (--fix can do this)
      ulimit -n 65536
  Or: Raise it for good
      echo '* - nofile 65536' | sudo tee /etc/security/limits.d/90-nofile.conf

! warning unknown-env-var  gpu[01-02,04] (ignored, as asked)
  NCCL_IB_DISABL is no variable that NCCL knows; did you mean NCCL_IB_DISABLE?
  Fix: Set the right one
      in the job's environment:
      NCCL_IB_DISABLE=1
      NCCL_SOCKET_IFNAME='=eno1 x'

– 4 checks could not judge:
  driver-too-old, torch-lacks-gpu-arch (gpu[01-02]): gpu: no NVML library on the host

✗ crashed low-memlock on gpu01
  A bug in this check, the others went on: KeyError: 'memlock'

✓ 3 checks passed (-v names them)

More about any of these: dsdoctor explain NAME
2 errors, 1 warning, 0 info, 3 passed, 4 skipped, 1 crashed, 1 ignored, 1 not examined (4 hosts, 1.2 s)
""")


def test_ill_cluster_on_a_narrow_ascii_screen() -> None:
    assert render(ILL, Look(width=50, unicode=False)) == snapshot("""\
x 2 errors, 1 warning on 3 of 4 hosts; gpu03 could
  not be examined; 1 check crashed.
  job order_1 from launch/order_1.yaml

x error duplicate-nccl  gpu[01-02]
  gpu[01-02]: 2 owners of libnccl.so.2
  (nvidia-nccl-cu11 2.14.3, nvidia-nccl-cu12
  2.18.1); one wanted
  | gpu01: nvidia-nccl-cu11==2.14.3 in
  |   /opt/env/lib/python3.10/site-packages
  | gpu02: nvidia-nccl-cu11==2.14.3 in
  |   /opt/env/lib/python3.10/site-packages
  Fix: Take out both, then put back the one that
       torch asks for
      python -m pip uninstall -y nvidia-nccl-cu11 nvidia-nccl-cu12
      python -m pip install --no-deps nvidia-nccl-cu12==2.18.1

x error unreachable-host  gpu03
  gpu03: nothing listens at port 22
  | ssh: ssh: connect to host gpu03 port 22:
  |   Connection refused
  Fix: Start sshd on the host
      sudo systemctl start sshd

! warning low-open-files  gpu04
  gpu04: 1024 open files are allowed in a
  non-interactive session; 65536 are wanted
  Fix: Raise the limit for this session (--fix can
       do this)
      ulimit -n 65536
  Or: Raise it for good
      echo '* - nofile 65536' | sudo tee /etc/security/limits.d/90-nofile.conf

! warning unknown-env-var  gpu[01-02,04] (ignored, as asked)
  NCCL_IB_DISABL is no variable that NCCL knows;
  did you mean NCCL_IB_DISABLE?
  Fix: Set the right one
      in the job's environment:
      NCCL_IB_DISABLE=1
      NCCL_SOCKET_IFNAME='=eno1 x'

- 4 checks could not judge:
  driver-too-old, torch-lacks-gpu-arch
    (gpu[01-02]): gpu: no NVML library on the host

x crashed low-memlock on gpu01
  A bug in this check, the others went on:
  KeyError: 'memlock'

ok 3 checks passed (-v names them)

More about any of these: dsdoctor explain NAME
2 errors, 1 warning, 0 info, 3 passed, 4 skipped,
1 crashed, 1 ignored, 1 not examined (4 hosts, 1.2
s)
""")


def test_healthy() -> None:
    assert render(HEALTHY, PLAIN) == snapshot("""\
✓ Nothing wrong found on localhost.

✓ 2 checks passed (-v names them)

0 errors, 0 warnings, 0 info, 2 passed, 0 skipped, 0 crashed, 0 ignored (1 host, 0.3 s)
""")


def test_verbose_names_what_passed_and_shows_the_traceback() -> None:
    text = render(ILL, PLAIN, verbose=True)
    assert "bf16-unsupported, low-shm, slots-exceed-gpus" in text
    assert "    Traceback (most recent call last):" in text


def test_what_many_checks_skipped_for_one_reason_is_counted() -> None:
    skipped = tuple(Skipped(f"check-{number}", (), "no host was examined") for number in range(13))
    report = msgspec.structs.replace(HEALTHY, skipped=skipped)
    assert "  13 (-v names them): no host was examined" in render(report, PLAIN).splitlines()
    assert "check-0, check-1," in render(report, PLAIN, verbose=True)
    few = msgspec.structs.replace(HEALTHY, skipped=skipped[:3])
    assert "  check-0, check-1, check-2: no host was examined" in render(few, PLAIN).splitlines()


def test_diagnosis() -> None:
    assert render(DIAGNOSED, PLAIN) == snapshot("""\
✗ nccl-socket-ifname (certain), began on gpu02, rank 2
  NCCL_SOCKET_IFNAME names an interface that this host does not have: eth2
  │ train.log:120: gpu02: NCCL WARN Bootstrap : no socket interface found
  │ train.log:133: RuntimeError: NCCL error: internal error
  NCCL takes the first interface whose name begins so, and gives up when there is none.
  Fix: Name the interface that carries the route to the master
      ip route get 192.0.2.4

What followed from it:
  · rank0-died-connection-reset (gpu01, ranks 0-1,3; line 140): This rank only sees that rank 0 went away

Harmless here:
  · DeepSpeed says which ops it cannot build (line 3, 2 times).

More about it: dsdoctor explain nccl-socket-ifname
cause found, 1 symptom, 1 harmless (0.1 s)
""")


def test_nothing_wrong() -> None:
    assert render(NONE, PLAIN) == snapshot("""\
✓ Nothing is wrong here.

Harmless here:
  · DeepSpeed says which ops it cannot build (line 3).

no cause found, 0 symptoms, 1 harmless (0.0 s)
""")


def test_unknown_cause() -> None:
    assert render(UNKNOWN, PLAIN) == snapshot("""\
? A failure that no rule knows; the first to fail was gpu01, rank 3.
  BadLine was raised, and no rule knows it: the first exception of each rank is below
  │ <stdin>:17: data.BadLine: 7
  Fix: Read upwards from these lines in the log of that rank

no cause found, 0 symptoms, 0 harmless (0.0 s)
""")


def test_the_verdict_is_in_the_first_three_lines() -> None:
    first = "\n".join(render(DIAGNOSED, Look(width=80)).split("\n")[:3])
    for word in ("nccl-socket-ifname", "certain", "gpu02", "rank 2", "eth2", "train.log:120"):
        assert word in first


def test_a_command_is_never_wrapped() -> None:
    command = "python -m pip install " + " ".join(f"package-{n}==1.0" for n in range(40))
    finding = Finding("x", Severity.ERROR, "m", fix=(Fix("t", (command, "cat <<EOF\nline\nEOF")),))
    text = render(Report("check", 0.0, findings=(finding,)), Look(width=40))
    assert f"\n      {command}\n      cat <<EOF\n      line\n      EOF\n" in text


def test_long_evidence_is_cut_and_said_to_be() -> None:
    evidence = tuple(Evidence(f"line {n} " + "x" * 1000, "log", n) for n in range(1, 21))
    report = Report("check", 0.0, findings=(Finding("x", Severity.ERROR, "m", evidence=evidence),))
    text = render(report, PLAIN)
    assert "x" * 500 not in text
    assert "and 15 more (-v shows all)" in text
    assert render(report, PLAIN, verbose=True).count("x" * 1000) == 20


def test_findings_that_differ_in_more_than_the_host_stay_apart() -> None:
    one = Finding("x", Severity.ERROR, "a: 3 GPUs, 4 wanted", ("a",))
    other = Finding("x", Severity.ERROR, "b: 2 GPUs, 4 wanted", ("b",))
    text = render(Report("check", 0.0, findings=(one, other)), PLAIN)
    assert "a: 3 GPUs, 4 wanted" in text
    assert "b: 2 GPUs, 4 wanted" in text


def test_a_host_name_inside_another_word_is_left_alone() -> None:
    findings = [Finding("x", Severity.ERROR, f"{h}: an alarm on {h}, not {h}x", (h,)) for h in ("a1", "a2")]
    assert "a[1-2]: an alarm on a[1-2], not a1x" not in render(Report("check", 0.0, findings=tuple(findings)), PLAIN)


def test_commands_of_merged_findings_are_all_there() -> None:
    findings = tuple(
        Finding("x", Severity.ERROR, f"{h} is ill", (h,), fix=(Fix(f"On {h}", (f"ssh {h} mend", "echo done")),))
        for h in ("a1", "a2")
    )
    text = render(Report("check", 0.0, findings=findings), PLAIN)
    assert "a[1-2] is ill\n  Fix: On a[1-2]\n      ssh a1 mend\n      echo done\n      ssh a2 mend\n" in text


ANYTHING = st.text(st.characters(codec=None), max_size=12)
EVIDENCE = st.builds(Evidence, text=ANYTHING, source=st.none() | ANYTHING, line=st.none() | st.integers(1, 9))
FIX = st.builds(Fix, title=ANYTHING, commands=st.tuples(ANYTHING), env=st.dictionaries(ANYTHING, ANYTHING, max_size=1))
FINDING = st.builds(
    Finding,
    name=ANYTHING,
    severity=st.sampled_from(Severity),
    message=ANYTHING,
    hosts=st.lists(ANYTHING, max_size=2).map(tuple),
    ranks=st.lists(st.integers(0, 9), max_size=2).map(tuple),
    evidence=st.lists(EVIDENCE, max_size=2).map(tuple),
    fix=st.lists(FIX, max_size=1).map(tuple),
    ignored=st.booleans(),
)
REPORT = st.builds(
    Report,
    command=st.just("check"),
    seconds=st.floats(0, 1e6),
    hosts=st.lists(st.builds(HostState, ANYTHING, st.booleans(), ANYTHING), max_size=2).map(tuple),
    findings=st.lists(FINDING, max_size=3).map(tuple),
    passed=st.lists(ANYTHING, max_size=2).map(tuple),
    skipped=st.lists(st.builds(Skipped, ANYTHING, st.tuples(ANYTHING), ANYTHING), max_size=1).map(tuple),
    crashed=st.lists(st.builds(Crashed, ANYTHING, st.tuples(ANYTHING), ANYTHING), max_size=1).map(tuple),
    verdict=st.none()
    | st.builds(
        Verdict,
        cause=ANYTHING,
        confidence=st.sampled_from(["certain", "likely", "possible"]),
        host=st.none() | ANYTHING,
        rank=st.none() | st.integers(0, 9),
        text=st.none() | ANYTHING,
        symptoms=st.tuples(ANYTHING),
        source=st.none() | ANYTHING,
    ),
    notes=st.lists(ANYTHING, max_size=2).map(tuple),
)


@settings(max_examples=150, deadline=None)
@given(REPORT, st.booleans(), st.none() | st.integers(40, 120), st.booleans())
def test_no_report_sends_control_to_the_screen(report: Report, color: bool, width: int | None, verbose: bool) -> None:
    text = render(report, Look(width, color), verbose)
    if color:
        text = re.sub("\x1b\\[[0-9;]+m", "", text)  # our own; those of the data are written out as \x1b
    bad = [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not bad


@settings(max_examples=50, deadline=None)
@given(REPORT)
def test_colour_adds_nothing_but_colour(report: Report) -> None:
    assert re.sub("\x1b\\[[0-9;]+m", "", render(report, Look(color=True))) == render(report, Look())


def test_data_cannot_fake_a_finding_of_its_own() -> None:
    """A log line with line breaks stays behind its bar, a message with line breaks stays one paragraph."""
    fake = "x\n\n✓ Nothing wrong found on 8 hosts.\n"
    finding = Finding(fake, Severity.ERROR, fake, (fake,), evidence=(Evidence(fake, fake),))
    lines = render(Report("check", 0.0, findings=(finding,), notes=(fake,)), PLAIN).split("\n")
    assert not [line for line in lines if line.startswith("✓ Nothing")]


def test_rendering_leaves_the_report_as_it_is() -> None:
    before = msgspec.json.encode(ILL)
    render(ILL, PLAIN)
    assert msgspec.json.encode(ILL) == before


def test_logs_are_named_by_the_end_of_their_path_as_far_as_it_tells_them_apart() -> None:
    def finding(*paths: str) -> Report:
        evidence = tuple(Evidence("text", path, 7) for path in paths)
        return Report("diagnose", 0.0, findings=(Finding("x", Severity.ERROR, "m", evidence=evidence),), verdict=WELL)

    assert "│ train.log:7: text" in render(finding("/data/runs/1/train.log"), PLAIN)
    both = render(finding("/data/runs/1/gpu01/rank0.log", "/data/runs/1/gpu02/rank0.log"), PLAIN)
    assert "│ gpu01/rank0.log:7: text" in both
    assert "│ gpu02/rank0.log:7: text" in both
    nested = render(finding("rank0.log", "b/rank0.log"), PLAIN)
    assert "│ rank0.log:7: text" in nested
    assert "│ b/rank0.log:7: text" in nested


WELL = Verdict("none", "likely")
