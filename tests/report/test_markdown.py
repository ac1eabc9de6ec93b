"""The report as Markdown for an issue."""

import re

from hypothesis import given, settings
from inline_snapshot import snapshot

from dsdoctor.report.markdown import render
from dsdoctor.report.model import Evidence, Finding, Fix, Report, Severity
from tests.report.reports import DIAGNOSED, ILL
from tests.report.test_text import REPORT


def test_ill_cluster() -> None:
    assert render(ILL) == snapshot("""\
### dsdoctor check: 2 errors, 1 warning on 3 of 4 hosts; gpu03 could not be examined; 1 check crashed.

job order_1 from launch/order_1.yaml

#### error: `duplicate-nccl` on `gpu[01-02]`

gpu\\[01-02\\]: 2 owners of libnccl.so.2 (nvidia-nccl-cu11 2.14.3, nvidia-nccl-cu12 2.18.1); one wanted

```text
gpu01: nvidia-nccl-cu11==2.14.3 in /opt/env/lib/python3.10/site-packages
gpu02: nvidia-nccl-cu11==2.14.3 in /opt/env/lib/python3.10/site-packages
```

**Fix:** Take out both, then put back the one that torch asks for

```sh
python -m pip uninstall -y nvidia-nccl-cu11 nvidia-nccl-cu12
python -m pip install --no-deps nvidia-nccl-cu12==2.18.1
```

#### error: `unreachable-host` on `gpu03`

gpu03: nothing listens at port 22

```text
ssh: ssh: connect to host gpu03 port 22: Connection refused
```

**Fix:** Start sshd on the host

```sh
sudo systemctl start sshd
```

#### warning: `low-open-files` on `gpu04`

gpu04: 1024 open files are allowed in a non-interactive session; 65536 are wanted

**Fix:** Raise the limit for this session

```sh
ulimit -n 65536
```

**Or:** Raise it for good

```sh
echo '* - nofile 65536' | sudo tee /etc/security/limits.d/90-nofile.conf
```

#### warning: `unknown-env-var` on `gpu[01-02,04]` (ignored, as asked)

NCCL_IB_DISABL is no variable that NCCL knows; did you mean NCCL_IB_DISABLE?

**Fix:** Set the right one

In the job's environment:

```sh
NCCL_IB_DISABLE=1
NCCL_SOCKET_IFNAME='=eno1 x'
```

**Not examined**

- `gpu03`: connection refused

**Could not judge**

- `driver-too-old`, `torch-lacks-gpu-arch` on `gpu[01-02]`: gpu: no NVML library on the host

<details><summary>crashed: low-memlock gpu01</summary>

```text
Traceback (most recent call last):
  …
KeyError: 'memlock'
```

</details>

3 checks passed.

2 errors, 1 warning, 0 info, 3 passed, 4 skipped, 1 crashed, 1 ignored, 1 not examined (4 hosts, 1.2 s); dsdoctor 0.1.0
""")


def test_diagnosis() -> None:
    assert render(DIAGNOSED) == snapshot("""\
### dsdoctor diagnose: nccl-socket-ifname (certain), began on gpu02, rank 2

#### error: `nccl-socket-ifname` on `gpu02, rank 2`

NCCL_SOCKET_IFNAME names an interface that this host does not have: eth2

```text
train.log:120: gpu02: NCCL WARN Bootstrap : no socket interface found
train.log:133: RuntimeError: NCCL error: internal error
```

**Fix:** Name the interface that carries the route to the master

```sh
ip route get 192.0.2.4
```

NCCL takes the first interface whose name begins so, and gives up when there is none.

**What followed from it**

- `rank0-died-connection-reset` (gpu01, ranks 0-1,3): This rank only sees that rank 0 went away

**Harmless here**

- DeepSpeed says which ops it cannot build (line 3, 2 times).

1 error, 0 warnings, 1 info, 0 passed, 0 skipped, 0 crashed, 0 ignored (0.1 s); dsdoctor 0.1.0
""")


def test_what_a_log_says_cannot_leave_its_block() -> None:
    finding = Finding("x", Severity.ERROR, "m", evidence=(Evidence("a\n```\n# b\n````\n", "log"),))
    text = render(Report("check", 0.0, findings=(finding,)))
    assert "`````text\nlog: a\n```\n# b\n````\n\n`````" in text


def test_messages_neither_format_nor_ping() -> None:
    message = "<img src=x> [a](http://b) **c** @octocat a@b.org `d`\n# e | f"
    finding = Finding("x", Severity.ERROR, message, fix=(Fix("1. <b>t</b>"),))
    text = render(Report("check", 0.0, findings=(finding,)))
    assert r"\<img src=x\> \[a\](http://b) \*\*c\*\* @<!-- -->octocat a@b.org \`d\` \# e \| f" in text
    assert r"**Fix:** 1\. \<b\>t\</b\>" in text


@settings(max_examples=100, deadline=None)
@given(REPORT)
def test_no_html_but_our_own(report: Report) -> None:
    outside = []
    fence = ""
    for line in render(report).split("\n"):
        mark = re.match(r"`{3,}", line)
        if fence:
            fence = "" if mark and mark[0] == fence and line == fence else fence
        elif mark:
            fence = mark[0]
        else:
            outside.append(line)
    assert not fence
    text = re.sub(r"`[^`\n]*`", "", "\n".join(outside))
    text = re.sub(r"</?(details|summary)>|<!-- -->", "", text)
    assert not re.search(r"(?<!\\)[<>]", text)
