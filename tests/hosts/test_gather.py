"""Gathering: what hosts answer or fail to, each on its own, in time, and all of it ended by an interruption."""

import os
import stat
import sys
import threading
import time

import pytest

from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable
from dsdoctor.hosts import gather as module
from dsdoctor.hosts.gather import gather, with_setup
from dsdoctor.hosts.hostfile import local_entry
from dsdoctor.hosts.transport.paramiko_ssh import ParamikoTransport
from tests.hosts import sshd

ANSWER = (
    'print("\\n<<<dsdoctor-facts\\n" + json.dumps({"probe_version": "9", "sections":'
    ' {"os": {"value": {"hostname": "h", "kernel": "6", "machine": "m"}, "seconds": 0.1},'
    ' "gpu": {"error": "no NVML"}}}) + "\\ndsdoctor-facts>>>")\n'
)
PROBE = ("import base64, json, os, sys\nconfig = json.loads(base64.b64decode(sys.argv[1]))\n" + ANSWER).encode()


def one(source=PROBE, entry=None, **options):
    """The member that comes of one host."""
    (member,) = gather([entry or local_entry(1)], source=source, config=options.pop("config", {}), **options)
    return member


def test_facts_of_this_machine_and_of_a_host(server):
    entries = [local_entry(2), server.entry(python=sys.executable)]
    members = gather(entries, source=PROBE, config={}, config_file=server.config)
    assert [member.entry for member in members] == entries
    for member in members:
        assert member.reach.ok
        assert member.reach.problem is None
        assert member.facts.os.hostname == "h"
        assert member.facts.name == member.name
        assert member.facts.snapshot.origin.startswith("recorded by dsdoctor")
        assert 0 < member.reach.seconds < 20
        with pytest.raises(FactUnavailable, match="no NVML"):
            assert member.facts.gpu


def test_the_real_probe(server):
    entries = [local_entry(1), server.entry(python=sys.executable)]
    for member in gather(entries, config={"targets": [], "paths": ["/tmp"], "deep": False}, config_file=server.config):
        assert member.reach.ok, member.reach.detail
        assert member.facts.os.kernel == os.uname().release
        assert member.facts.python.version == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize("ahead", [0.0, 100.0, -100.0])
def test_how_far_a_hosts_clock_is_ahead(ahead):
    timed = f'"machine": "m", "time": __import__("time").time() + {ahead}'.encode()
    quick = PROBE.replace(b'"seconds": 0.1', b'"seconds": 0.0')
    os_facts = one(quick.replace(b'"machine": "m"', timed)).facts.os
    assert os_facts.clock_ahead_least <= ahead <= os_facts.clock_ahead_most
    assert os_facts.clock_ahead_most - os_facts.clock_ahead_least < 10
    for untold in ('"machine": "m"', '"machine": "m", "time": None', '"machine": "m", "time": "noon"'):
        facts = one(PROBE.replace(b'"machine": "m"', untold.encode())).facts
        assert "clock_ahead_least" not in facts.snapshot.sections["os"].value


def test_the_probe_gets_its_config():
    source = PROBE.replace(b'"hostname": "h"', b'"hostname": json.dumps(config, sort_keys=True)')
    config = {"targets": ["w1", "é'\"$"], "paths": ["/a b"], "deep": True}
    member = one(source, config=config, timeout=33)
    assert member.facts.os.hostname == (
        '{"deep": true, "paths": ["/a b"], "targets": ["w1", "\\u00e9\'\\"$"], "timeout": 31.0}'
    )
    member = one(source, config={"timeout": 5}, timeout=33)
    assert member.facts.os.hostname == '{"timeout": 5.0}'


def test_a_config_that_no_command_line_carries():
    with pytest.raises(ValueError, match="the probe's config is"):
        one(config={"targets": ["x" * 100_000]})


def test_noise_around_the_answer():
    noise = b"print('motd <<<dsdoctor-facts'); print('<<<dsdoctor-facts\\nearlier\\ndsdoctor-facts>>>')\n"
    assert one(noise + PROBE + b"print('bye'); print('dsdoctor-facts>>>')\n").facts.os.hostname == "h"
    crlf = PROBE.replace(b"\\n", b"\\r\\n")
    assert one(crlf).facts.os.hostname == "h"


@pytest.mark.parametrize("kind", ["openssh", "paramiko"])
@pytest.mark.parametrize("setup", [(), ("echo loading a module",)])
def test_what_the_login_shell_prints_and_takes(tmp_path, kind, setup):
    server = sshd.make(tmp_path / "noisy")
    try:
        shell = server.folder / "home" / ".bashrc"
        shell.write_text("echo 'Welcome to  the cluster'\necho 'x <<<dsdoctor-facts'\nsleep 0.4\n")
        entry = server.entry(python=sys.executable)
        (member,) = gather([entry], config={"sections": ["session"]}, setup=setup, kind=kind, config_file=server.config)
        assert member.reach.ok, member.reach.detail
        session = member.facts.session
        if not session.printed and not session.shell.endswith("bash"):
            pytest.skip(f"{session.shell} does not read .bashrc here")
        assert session.printed == "Welcome to  the cluster\nx <<<dsdoctor-facts\n"
        assert session.setup == setup
        assert session.shell_seconds is None or 0.35 < session.shell_seconds < 5
        shell.write_text("printf '%70000s' x\n")
        (member,) = gather([entry], config={"sections": ["session"]}, kind=kind, config_file=server.config)
        assert len(member.facts.session.printed) == module.PRINTED
    finally:
        server.stop()


def test_a_quiet_shell_and_this_machine(server):
    entries = [server.entry(python=sys.executable), local_entry(1)]
    for member in gather(entries, config={"sections": ["session"]}, config_file=server.config):
        assert member.facts.session.printed == ""
    assert member.facts.session.shell_seconds is None


def test_each_host_gets_what_is_its_own(server):
    source = PROBE.replace(b'"hostname": "h"', b'"hostname": config["paths"][0] + config["targets"][0]')
    entries = [server.entry(python=sys.executable), local_entry(1)]
    own = {"127.0.0.1": {"paths": ["/far "]}}
    config = {"paths": ["/near "], "targets": ["t"]}
    far, near = gather(entries, source=source, config=config, own=own, config_file=server.config)
    assert (far.facts.os.hostname, near.facts.os.hostname) == ("/far t", "/near t")


@pytest.mark.parametrize(
    ("source", "problem", "detail"),
    [
        (b"", "probe-failed", "it ended without an answer"),
        (b"print('hello')", "probe-failed", "it ended without an answer: hello"),
        (b"print('\\n<<<dsdoctor-facts\\n{')", "probe-failed", "its answer is cut off"),
        (b"print('\\n<<<dsdoctor-facts\\n{\\ndsdoctor-facts>>>')", "probe-failed", "its answer cannot be read: "),
        (b"print('\\n<<<dsdoctor-facts\\n[1]\\ndsdoctor-facts>>>')", "probe-failed", "its answer cannot be read: "),
        (
            b"print('\\n<<<dsdoctor-facts\\n{\"sections\": 3}\\ndsdoctor-facts>>>')",
            "probe-failed",
            "its answer cannot be read: ",
        ),
        (
            b"print('\\n<<<dsdoctor-facts\\n' + '[' * 100000 + '\\ndsdoctor-facts>>>')",
            "probe-failed",
            "its answer cannot be read: ",
        ),
        (
            b'print(\'\\n<<<dsdoctor-facts\\n{"error": "python is 2.7", "sections": {}}\\ndsdoctor-facts>>>\')',
            "probe-failed",
            "python is 2.7",
        ),
        (b"f'{1' + ", "probe-failed", "it ended with exit code 1: Traceback "),
        (b"import sys; sys.exit('\\x1b[31mno \\x07disk')", "probe-failed", "it ended with exit code 1: no \\x07disk"),
        (b"import os; os.kill(os.getpid(), 11)", "probe-failed", "it was ended by signal 11 (Segmentation fault)"),
        (b"raise SystemExit(255)", "probe-failed", "it ended with exit code 255"),
    ],
)
def test_a_probe_that_does_not_answer(source, problem, detail):
    member = one(source)
    assert (member.reach.ok, member.reach.problem, member.facts) == (False, problem, None)
    assert member.reach.detail.startswith(detail)
    assert member.reach.detail.isprintable()


def test_a_probe_that_talks_without_end(monkeypatch):
    monkeypatch.setattr("dsdoctor.hosts.transport.child.OUTPUT_LIMIT", 100_000)
    member = one(b"print('x' * 1000000)\n" + PROBE)
    assert member.reach.problem == "probe-failed"
    assert "printed more than 64 MiB" in member.reach.detail


def test_a_probe_that_hangs():
    begun = time.monotonic()
    member = one(b"import time; print('so far', flush=True); time.sleep(600)", timeout=5)
    assert time.monotonic() - begun < 60
    assert member.reach.problem == "probe-failed"
    assert member.reach.detail == "no answer within 5 s; it said: so far"


@pytest.mark.parametrize("remote", [False, True])
def test_no_such_interpreter(server, remote):
    entry = server.entry(python="/opt/conda/envs/dis/bin/python") if remote else None
    member = one(entry=entry, python="/opt/conda/envs/dis/bin/python", config_file=server.config)
    assert member.reach.problem == "no-python"
    assert "/opt/conda/envs/dis/bin/python" in member.reach.detail


def fake_python(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_which_interpreter_is_asked(tmp_path, monkeypatch):
    ours = fake_python(tmp_path, "ours", "echo this is ours; exit 3")
    theirs = fake_python(tmp_path, "theirs", "echo this is theirs; exit 3")
    entry = HostEntry("localhost", 1, local=True, python=theirs)
    assert "this is theirs" in one(entry=entry, python=ours).reach.detail
    assert "this is ours" in one(python=ours).reach.detail
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, "own", "echo this is the one; exit 3"))
    assert "this is the one" in one().reach.detail


def test_setup_lines_come_before_and_see_no_input(tmp_path):
    source = PROBE.replace(b'"hostname": "h"', b'"hostname": os.environ["WHERE"]')
    setup = ["echo loading; cat", f'WHERE="{tmp_path} $0"', "export WHERE"]
    assert one(source, setup=setup).facts.os.hostname == f"{tmp_path} dsdoctor"
    assert with_setup(["a", "b c"], []) == ["a", "b c"]


def test_a_setup_line_that_fails_is_named():
    member = one(setup=["true", "module load cuda/12.2", "echo not reached"])
    assert member.reach.problem in ("probe-failed", "no-python")
    assert "setup line failed: module load cuda/12.2" in member.reach.detail
    assert "not reached" not in member.reach.detail


def test_a_dead_host_costs_the_others_nothing(server):
    with sshd.bad_server(lambda connection: None) as hanging:
        entries = [
            server.entry(port=hanging, name="localhost"),
            server.entry(name="no-such-host.invalid"),
            server.entry(python=sys.executable),
            HostEntry("127.0.0.2", 1, port=sshd.free_port()),
            local_entry(1),
        ]
        heard = []

        def progress(member):
            assert threading.current_thread() is threading.main_thread()
            heard.append((member.name, member.reach.ok))

        members = gather(
            entries, source=PROBE, config={}, config_file=server.config, connect_timeout=2, on_progress=progress
        )
    assert [member.reach.problem for member in members] == ["timeout", "unresolvable", None, "refused", None]
    assert heard[-1][0] == "localhost"
    assert [ok for _, ok in heard].count(True) == 2  # long before, and not held up


def test_more_hosts_than_are_asked_at_once(monkeypatch):
    monkeypatch.setattr(module, "PARALLEL", 4)
    entries = [HostEntry(f"h{number}", 1, local=True) for number in range(10)]
    members = gather(entries, source=PROBE, config={})
    assert [member.name for member in members] == [entry.name for entry in entries]
    assert all(member.reach.ok for member in members)
    assert gather([], source=PROBE, config={}) == ()


def test_connections_are_kept_for_the_caller(server):
    kept = {}
    entry = server.entry(python=sys.executable)
    dead = HostEntry("127.0.0.2", 1, port=sshd.free_port())
    before = logins(server)
    gather([entry, dead], source=PROBE, config={}, config_file=server.config, transports=kept)
    assert list(kept) == ["127.0.0.1"]
    first = kept["127.0.0.1"]
    gather([entry], source=PROBE, config={}, config_file=server.config, transports=kept)
    assert kept["127.0.0.1"] is first
    assert first.run(["echo", "hi"]).stdout == b"hi\n"
    first.close()
    assert logins(server) == before + 1


def logins(server):
    return (server.folder / "sshd.log").read_text().count("Accepted ")


@pytest.mark.parametrize("kind", ["openssh", "paramiko"])
def test_an_interruption_ends_everything(server, kind):
    slow = b"import time; time.sleep(254.5)"
    with sshd.bad_server(lambda connection: None) as hanging:
        entries = [
            local_entry(1),
            server.entry(name="127.0.0.1", python=sys.executable),
            server.entry(name="localhost", port=hanging),
            *(HostEntry(f"more{number}", 1, local=True) for number in range(40)),
        ]
        sources = {"n": 0}

        def interrupt(member):
            sources["n"] += 1
            raise KeyboardInterrupt

        quick = HostEntry("quick", 1, local=True, python="false")
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            gather([*entries[:3], quick, *entries[3:]], source=slow, config={}, kind=kind,
                   config_file=server.config, on_progress=interrupt)  # fmt: skip
        assert time.monotonic() - begun < 100
    assert sources["n"] == 1
    assert sshd.until(lambda: not sshd.alive(str(server.config)), 60)


def test_nothing_is_left_running_after_gathering(server):
    gather([server.entry(python=sys.executable)], source=PROBE, config={}, config_file=server.config)
    assert not sshd.alive(str(server.config))


@pytest.fixture
def sizes(monkeypatch):
    """What is sent to a host by paramiko, in bytes, one a command."""
    sent = []
    run = ParamikoTransport.run

    def counted(self, argv, *, stdin=b"", timeout=30.0):
        sent.append(len(stdin))
        return run(self, argv, stdin=stdin, timeout=timeout)

    monkeypatch.setattr(ParamikoTransport, "run", counted)
    return sent


def test_a_python_that_is_known_is_sent_no_source(server, sizes, tmp_path):
    """Nor does another one in its place do harm: it says so, and is sent all."""
    other = fake_python(tmp_path, "python", f'exec {sys.executable} "$@"')
    entry = server.entry(python=str(other))
    transports = {}
    options = {"config": {}, "config_file": server.config, "kind": "paramiko", "transports": transports}
    try:
        for _ in range(2):
            (member,) = gather([entry], **options)
            assert member.reach.ok, member.reach.detail
        whole, bare = sizes
        assert (whole, bare) == (len(module.probe_pack()), len(module.probe_pack(source=False)))
        assert bare < 0.8 * whole
        lying = "import sys;sys.implementation.cache_tag=None;"  # and of no bytecode of its own
        fake_python(tmp_path, "python", f'exec {sys.executable} -u -c "{lying}$3" "$4"')
        (member,) = gather([entry], **options)
        assert member.reach.ok, member.reach.detail
        assert sizes[2:] == [bare, whole]
    finally:
        for transport in transports.values():
            transport.close()
