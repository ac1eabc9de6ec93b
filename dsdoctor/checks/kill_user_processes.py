"""systemd-logind ends what a user leaves running."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import as_root, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def kill_user_processes(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """systemd-logind ends everything that a login session started when the session ends.

    ## Why it matters
    With KillUserProcesses=yes a run that was to go on without you (`launch --detach`, nohup, screen, tmux) gets a
    SIGTERM the moment the connection that started it closes.

    ## How to fix it
    Set it to no, or start the run in a scope of its own.

    ## Source
    logind.conf(5), KillUserProcesses= and KillExcludeUsers= (root is exempt); systemd-run(1).
    """
    session = host.session
    if not session.kill_user_processes or session.login_session is None or host.os.uid == 0:
        return
    if session.login_session.startswith("user@") and session.lingers:
        return  # below the user's own manager, which stays
    setting = "/etc/systemd/logind.conf.d/10-kill-user-processes.conf"
    yield kill_user_processes.finding(
        "KillUserProcesses=yes is set: a detached run ends when the session that started it ends",
        evidence=[
            Evidence(
                text=f"logind.conf: KillUserProcesses=yes; session {session.login_session}",
                source=host.name,
            )
        ],
        fix=[
            Fix(
                "Set it to no",
                (
                    as_root(host, entry, "mkdir -p /etc/systemd/logind.conf.d"),
                    as_root(host, entry, f"tee {setting}", fed_by='printf "%s\\n" "[Login]" KillUserProcesses=no'),
                    as_root(host, entry, "systemctl restart systemd-logind"),
                ),
            ),
            Fix(
                "Start what is to stay in a scope of its own, of a user that lingers",
                (on_host(entry, "loginctl enable-linger"), on_host(entry, "systemd-run --user --scope tmux new -d")),
            ),
        ],
    )
