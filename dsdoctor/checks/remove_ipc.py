"""systemd-logind would remove the job's shared memory."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_LAST_SYSTEM_USER = 999  # SYS_UID_MAX of login.defs, as systemd was built with


@check(severity=Severity.WARNING, since="0.1")
def remove_ipc(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The job runs outside of any login session, and systemd-logind removes the shared memory of users without one.

    ## Why it matters
    When the user's last login ends, logind deletes what belongs to the user in /dev/shm, the files of a running job
    among it: "NCCL WARN unlink shared memory /dev/shm/nccl-… failed, error: No such file or directory". A job that is
    part of a login session (started over ssh in the usual way) keeps that session, and the user, alive. A job of Slurm,
    mpirun, cron, or of an sshd without pam_systemd does not.

    ## How to fix it
    Set RemoveIPC=no, or let the user linger.

    ## Source
    NVIDIA's NCCL guide, "Shared memory", Systemd; logind.conf(5): the default is yes, on RHEL and its kin no; root and
    system users are exempt (user_finalize in systemd's logind-user.c).
    """
    session = host.session
    if not session.logind or not session.remove_ipc or session.login_session is not None or session.lingers:
        return
    if host.os.uid <= _LAST_SYSTEM_USER or not host.gpu.gpus:
        return
    setting = "/etc/systemd/logind.conf.d/10-remove-ipc.conf"
    user = "" if host.os.user.startswith("-") else host.os.user
    linger = as_root(host, entry, f"loginctl enable-linger {shlex.quote(user)}")
    yield remove_ipc.finding(
        "RemoveIPC=yes is set, and this session is none that systemd-logind knows: when the user logs out elsewhere, "
        "the job's files in /dev/shm are removed",
        evidence=[Evidence(text="logind.conf: RemoveIPC=yes; cgroup: in no session scope", source=host.name)],
        fix=[
            Fix(
                "Set it to no",
                (
                    as_root(host, entry, "mkdir -p /etc/systemd/logind.conf.d"),
                    as_root(host, entry, f"tee {setting}", fed_by='printf "%s\\n" "[Login]" RemoveIPC=no'),
                    as_root(host, entry, "systemctl restart systemd-logind"),
                ),
            ),
            *([Fix("Let the user count as logged in", (linger,))] if user else []),
        ],
    )
