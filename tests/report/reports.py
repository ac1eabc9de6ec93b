"""Reports made by hand, that every renderer is tried on."""

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


def duplicate_nccl(host: str) -> Finding:
    return Finding(
        name="duplicate-nccl",
        severity=Severity.ERROR,
        message=f"{host}: 2 owners of libnccl.so.2 (nvidia-nccl-cu11 2.14.3, nvidia-nccl-cu12 2.18.1); one wanted",
        hosts=(host,),
        evidence=(Evidence("nvidia-nccl-cu11==2.14.3 in /opt/env/lib/python3.10/site-packages", host),),
        fix=(
            Fix(
                "Take out both, then put back the one that torch asks for",
                (
                    "python -m pip uninstall -y nvidia-nccl-cu11 nvidia-nccl-cu12",
                    "python -m pip install --no-deps nvidia-nccl-cu12==2.18.1",
                ),
            ),
        ),
    )


ILL = Report(
    command="check",
    seconds=1.234,
    hosts=(
        HostState("gpu01", True),
        HostState("gpu02", True),
        HostState("gpu03", False, "connection refused"),
        HostState("gpu04", True),
    ),
    findings=(
        Finding(
            "low-open-files",
            Severity.WARNING,
            "gpu04: 1024 open files are allowed in a non-interactive session; 65536 are wanted",
            ("gpu04",),
            fix=(
                Fix("Raise the limit for this session", ("ulimit -n 65536",), safe=True),
                Fix(
                    "Raise it for good",
                    ("echo '* - nofile 65536' | sudo tee /etc/security/limits.d/90-nofile.conf",),
                ),
            ),
        ),
        duplicate_nccl("gpu01"),
        duplicate_nccl("gpu02"),
        Finding(
            "unreachable-host",
            Severity.ERROR,
            "gpu03: nothing listens at port 22",
            ("gpu03",),
            evidence=(Evidence("ssh: connect to host gpu03 port 22: Connection refused", "ssh"),),
            fix=(Fix("Start sshd on the host", ("sudo systemctl start sshd",)),),
        ),
        Finding(
            "unknown-env-var",
            Severity.WARNING,
            "NCCL_IB_DISABL is no variable that NCCL knows; did you mean NCCL_IB_DISABLE?",
            ("gpu01", "gpu02", "gpu04"),
            fix=(Fix("Set the right one", env={"NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "=eno1 x"}),),
            ignored=True,
        ),
    ),
    passed=("bf16-unsupported", "low-shm", "slots-exceed-gpus"),
    skipped=(
        Skipped("driver-too-old", ("gpu01",), "gpu: no NVML library on the host"),
        Skipped("torch-lacks-gpu-arch", ("gpu01",), "gpu: no NVML library on the host"),
        Skipped("driver-too-old", ("gpu02",), "gpu: no NVML library on the host"),
        Skipped("torch-lacks-gpu-arch", ("gpu02",), "gpu: no NVML library on the host"),
    ),
    crashed=(Crashed("low-memlock", ("gpu01",), "Traceback (most recent call last):\n  …\nKeyError: 'memlock'\n"),),
    notes=("job order_1 from launch/order_1.yaml",),
)

HEALTHY = Report(
    command="check", seconds=0.31, hosts=(HostState("localhost", True),), passed=("duplicate-nccl", "low-shm")
)

DIAGNOSED = Report(
    command="diagnose",
    seconds=0.05,
    findings=(
        Finding(
            "nccl-socket-ifname",
            Severity.ERROR,
            "NCCL_SOCKET_IFNAME names an interface that this host does not have: eth2",
            ("gpu02",),
            (2,),
            (
                Evidence("gpu02: NCCL WARN Bootstrap : no socket interface found", "train.log", 120),
                Evidence("RuntimeError: NCCL error: internal error", "train.log", 133),
            ),
            (Fix("Name the interface that carries the route to the master", ("ip route get 192.0.2.4",)),),
        ),
        Finding(
            "rank0-died-connection-reset",
            Severity.INFO,
            "This rank only sees that rank 0 went away",
            ("gpu01",),
            (0, 1, 3),
            (Evidence("Connection reset by peer", "train.log", 140),),
        ),
    ),
    notes=(
        "NCCL takes the first interface whose name begins so, and gives up when there is none.",
        "Harmless: DeepSpeed says which ops it cannot build (line 3, 2 times).",
    ),
    verdict=Verdict(
        "nccl-socket-ifname",
        "certain",
        "gpu02",
        2,
        120,
        "gpu02: NCCL WARN Bootstrap : no socket interface found",
        ("rank0-died-connection-reset",),
        "train.log",
    ),
)

NONE = Report(
    command="diagnose",
    seconds=0.02,
    verdict=Verdict("none", "likely"),
    notes=("Harmless: DeepSpeed says which ops it cannot build (line 3).",),
)

UNKNOWN = Report(
    command="diagnose",
    seconds=0.02,
    findings=(
        Finding(
            "unknown",
            Severity.ERROR,
            "BadLine was raised, and no rule knows it: the first exception of each rank is below",
            ("gpu01",),
            (3,),
            (Evidence("data.BadLine: 7", "<stdin>", 17),),
            (Fix("Read upwards from these lines in the log of that rank"),),
        ),
    ),
    verdict=Verdict("unknown", "possible", "gpu01", 3, 17, "data.BadLine: 7", source="<stdin>"),
)

ONLY_SYMPTOMS = Report(
    command="diagnose",
    seconds=0.02,
    findings=(Finding("exits-with-return-code", Severity.ERROR, "The launcher says that a rank ended", (), (2,)),),
    verdict=Verdict(
        "unknown", "possible", None, 2, 9, "rank 2 exits with return code = 1", ("exits-with-return-code",)
    ),
    notes=("The cause is not in this log, only what it did to others: look at the log of the rank that ended first.",),
)

ALL = {
    "ill": ILL,
    "healthy": HEALTHY,
    "diagnosed": DIAGNOSED,
    "none": NONE,
    "unknown": UNKNOWN,
    "symptoms": ONLY_SYMPTOMS,
}
