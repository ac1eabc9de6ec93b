"""A host of the hostfile could not be examined; each reason has its own way out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host, quote, ssh_words
from dsdoctor.cluster import Cluster, HostEntry, Member, ReachProblem
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_WHAT: dict[ReachProblem, str] = {
    "unresolvable": "the name has no address on this machine",
    "refused": "nothing listens at ssh's port",
    "timeout": "no answer within the time limit",
    "no-route": "the network has no way to the host",
    "unknown-key": "the host's key is not in known_hosts",
    "changed-key": "the host's key is not the one in known_hosts",
    "denied": "the host accepted no key of this user",
    "closed": "the connection ended before the answer was complete",
    "no-python": "the interpreter for the job is not there",
    "probe-failed": "the probe ended without a readable answer",
    "unsupported": "the transport cannot do what the ssh settings for this host ask for",
    "not-recorded": "there is no saved snapshot of it",
    "other": "ssh failed",
}


@check(severity=Severity.ERROR, since="0.1")
def unreachable_host(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """A host cannot be examined: ssh does not get there, or the probe does not run.

    ## Why it matters
    The job is started on every host by the same door. Launchers that go on without looking leave the other hosts
    waiting for the missing one until a timeout, ten minutes later, with an error that names the wrong host: DeepSpeed
    tests only the first host, and its pdsh leaves the healthy hosts waiting.

    ## How to fix it
    Each reason has its own commands. Host keys are compared with what the host itself says before they are trusted;
    nothing here turns the comparison off.

    ## Source
    ssh(1), ssh-keyscan(1); DeepSpeed 0.19.6, launcher/runner.py.
    """
    for member in cluster:
        if member.reach.ok:
            continue
        problem = member.reach.problem or "other"
        detail = member.reach.detail.strip()
        yield unreachable_host.finding(
            f"the host cannot be examined: {_WHAT[problem]}",
            hosts=[member.name],
            evidence=[Evidence(text=detail, source=member.name)] if detail else [],
            fix=_fixes(problem, member),
        )


def _fixes(problem: ReachProblem, member: Member) -> Iterator[Fix]:
    entry = member.entry
    name = shlex.quote(entry.name)
    destination = " ".join(ssh_words(entry))
    port = f"-p {entry.port} " if entry.port else ""
    if problem == "unresolvable":
        yield Fix("Compare the name with the hostfile, and give it an address", (f"getent hosts {name}",))
        yield Fix(
            "Where DNS does not know the name", (f"echo {quote(f'ADDRESS {entry.name}')} | sudo tee -a /etc/hosts",)
        )
    elif problem == "refused":
        yield Fix(
            "On the host's console: start sshd", ("sudo systemctl enable --now ssh || sudo systemctl start sshd",)
        )
        yield Fix(f"Where sshd has another port than {entry.port or 22}: add port=N to the host's line in the hostfile")
    elif problem in ("timeout", "no-route"):
        yield Fix("See whether the host is on and how far packets get", (f"ping -c 3 {name}", f"ip route get {name}"))
        yield Fix(
            "A firewall that drops packets looks the same: try the port", (f"nc -zvw 5 {name} {entry.port or 22}",)
        )
    elif problem == "unknown-key":
        yield Fix(
            "Compare the key's fingerprint with the one the host's console shows (second command, there)",
            (
                f"ssh-keyscan {port}-t ed25519 {name} | ssh-keygen -lf -",
                "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
            ),
        )
        yield Fix("When both agree, store it", (f"ssh-keyscan {port}-t ed25519 {name} >> ~/.ssh/known_hosts",))
    elif problem == "changed-key":
        stored = shlex.quote(f"[{entry.name}]:{entry.port}") if entry.port not in (None, 22) else name
        yield Fix("Find out why first: a host installed anew has a new key, and so has a machine that takes its place")
        yield Fix("When the new key is the host's own, drop the old one", (f"ssh-keygen -R {stored}",))
    elif problem == "denied":
        yield Fix("Let this machine's key in", (f"ssh-copy-id {destination}",))
        yield Fix("When the user differs there: add user=NAME to the host's line in the hostfile")
    elif problem == "not-recorded":
        yield Fix("Record it", (f"dsdoctor check --hostfile HOSTFILE --include {name} --save-facts DIR",))
    else:
        yield from _after_login(problem, entry)


def _after_login(problem: ReachProblem, entry: HostEntry) -> Iterator[Fix]:
    """Ways out where ssh itself may work."""
    python = entry.python or "python3"
    if problem == "no-python":
        yield Fix("See which interpreters are there", (on_host(entry, f"command -v {shlex.quote(python)} python3"),))
        yield Fix(
            "Name the job's interpreter by its path: python=/path/bin/python in the hostfile, or python: in the job"
        )
    elif problem == "probe-failed":
        yield Fix("Run the interpreter there by hand", (on_host(entry, f"{shlex.quote(python)} -c 'print(1)'"),))
    elif problem == "unsupported":
        yield Fix(
            "Use the system's ssh, which honours all of them",
            ("command -v ssh || sudo apt-get install openssh-client",),
        )
    else:
        yield Fix("Watch ssh connect", (" ".join(["ssh -v", *ssh_words(entry), "true"]),))
