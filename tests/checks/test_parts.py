"""The parts that the checks share: names that are near, commands that survive a shell, grammars, pages, tables."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdoctor.checks import UnknownCheckError, catalogue, example_for, page
from dsdoctor.checks.ifname import leading_to_master, select
from dsdoctor.checks.names import disagree
from dsdoctor.checks.nearest import distance, nearest
from dsdoctor.checks.remedy import as_root, install, on_host, quote, uninstall
from dsdoctor.checks.tables import variables
from dsdoctor.checks.torch_lacks_gpu_arch import runs_on
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts, NetworkFacts, Snapshot
from dsdoctor.report.model import Severity
from tests.checks.building import load_cluster

KNOWN = frozenset(variables().nccl) | frozenset(variables().torch)


class TestNearest:
    @pytest.mark.parametrize(
        ("wrong", "right"),
        [
            ("NCCL_IB_DISABL", "NCCL_IB_DISABLE"),
            ("NCCL_IB_DISABLED", "NCCL_IB_DISABLE"),
            ("NCCL_P2P_DISBALE", "NCCL_P2P_DISABLE"),
            ("NCCL_SOKET_IFNAM", "NCCL_SOCKET_IFNAME"),
            ("NCCL_DISABLE_IB", "NCCL_IB_DISABLE"),
            ("TORCH_NCCL_DUMP_ON_TIMOUT", "TORCH_NCCL_DUMP_ON_TIMEOUT"),
            ("NCCL_LEVEL_P2P", "NCCL_P2P_LEVEL"),
        ],
    )
    def test_slips(self, wrong: str, right: str) -> None:
        assert nearest(wrong, KNOWN) == right

    @pytest.mark.parametrize("name", ["NCCL_MAKE_IT_FAST", "TORCH_HOME", "TORCH_LOGS", "GLOO_X", "NCCL_", ""])
    def test_names_that_are_near_to_none(self, name: str) -> None:
        assert nearest(name, KNOWN) is None

    def test_no_known_name_is_taken_for_a_slip_of_another(self) -> None:
        assert all(distance(name, name) == 0 for name in KNOWN)

    @given(st.text("ABC_", max_size=6), st.text("ABC_", max_size=6))
    def test_a_distance_is_one(self, first: str, second: str) -> None:
        assert distance(first, second) == distance(second, first) <= max(len(first), len(second))
        assert (distance(first, second) == 0) == (first == second)

    @given(st.text("AB", min_size=2, max_size=6), st.integers(0, 4))
    def test_neighbours_that_changed_places_are_one_slip(self, text: str, place: int) -> None:
        place %= len(text) - 1
        swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        assert distance(text, swapped) == (text != swapped)


class TestCommands:
    @settings(max_examples=40, deadline=None)
    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
    def test_a_command_in_quotes_is_one_word_of_the_shell(self, command: str) -> None:
        printed = subprocess.run(["sh", "-c", f"printf %s {quote(command)}"], capture_output=True, check=True).stdout
        assert printed == command.encode()

    def test_another_user_and_port(self) -> None:
        entry = HostEntry("gpu-a", 2, user="trainer", port=2222)
        assert on_host(entry, "uptime") == "ssh -p 2222 trainer@gpu-a uptime"
        assert on_host(entry, "ls -l", terminal=True) == "ssh -t -p 2222 trainer@gpu-a 'ls -l'"
        assert on_host(HostEntry("here", 1, local=True), "ls -l", terminal=True) == "ls -l"

    def test_a_hostile_name_is_a_word(self) -> None:
        assert shlex.split(on_host(HostEntry("a; rm -rf ~", 1), "true")) == ["ssh", "a; rm -rf ~", "true"]
        assert on_host(HostEntry("-oProxyCommand=id", 1), "true") == "ssh -- -oProxyCommand=id true"

    def test_root_needs_no_sudo(self) -> None:
        host = HostFacts(Snapshot(host="a", sections={}))
        assert as_root(host, HostEntry("a", 1), "reboot") == "ssh -t a 'sudo reboot'"

    def test_an_interpreter_that_is_not_known(self) -> None:
        host = HostFacts(Snapshot(host="a", sections={}))
        assert install(host, "x==1", force=True) == "python -m pip install --force-reinstall --no-deps x==1"
        assert uninstall(host, ["a b"]) == "python -m pip uninstall -y 'a b'"


def network(*interfaces: tuple[str, bool, bool]) -> NetworkFacts:
    """Interfaces by name, whether up, whether they have an address."""
    import msgspec

    return msgspec.convert(
        {
            "interfaces": [
                {
                    "name": name,
                    "up": up,
                    "loopback": name == "lo",
                    "addresses": [{"address": "192.0.2.1", "prefix": 24}] if addressed else [],
                }
                for name, up, addressed in interfaces
            ]
        },
        NetworkFacts,
    )


NICS = network(
    ("lo", True, True), ("eth0", True, True), ("eth1", False, True), ("eth01", True, False), ("ib0", True, True)
)


class TestInterfaceNames:
    @pytest.mark.parametrize(
        ("value", "usable"),
        [
            ("eth", ["eth0"]),
            ("eth0", ["eth0"]),
            ("=eth0", ["eth0"]),
            ("=eth", []),
            ("eth,ib", ["eth0", "ib0"]),
            ("none,ib0", ["ib0"]),
            ("=none,ib0", ["ib0"]),
            ("^eth", ["ib0"]),
            ("^=eth0", ["ib0"]),
            ("^eth,ib", []),
            ("eth1", []),
            ("eth01", []),
            (",,", []),
            ("lo", ["lo"]),
            ("^", None),
            ("", None),
        ],
    )
    def test_nccl(self, value: str, usable: list[str] | None) -> None:
        selected = select("NCCL_SOCKET_IFNAME", value, NICS)
        if usable is None:
            assert selected is None
            return
        assert selected is not None
        assert [interface.name for interface in selected.usable] == usable
        assert bool(selected.problems) is not bool(usable)

    @pytest.mark.parametrize(
        ("value", "problems"),
        [
            ("eth0", 0),
            ("eth0,ib0", 0),
            ("eth0,", 0),
            ("eth0,eth9", 1),
            ("eth", 1),
            ("=eth0", 1),
            ("^eth0", 1),
            ("eth1,eth01,x9", 3),
        ],
    )
    def test_gloo(self, value: str, problems: int) -> None:
        selected = select("GLOO_SOCKET_IFNAME", value, NICS)
        assert selected is not None
        assert len(selected.problems) == problems

    @given(st.text("^=,eth01ibx", max_size=8), st.sampled_from(["NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"]))
    def test_any_value_selects_or_says_why_not(self, value: str, variable: str) -> None:
        selected = select(variable, value, NICS)
        if selected is not None and set(value) - set(",^="):
            assert selected.usable or selected.problems

    def test_the_way_to_the_master(self) -> None:
        first, second = load_cluster("xuanyuan")
        assert first.facts and second.facts
        assert leading_to_master(first.facts.network, "gpu-a") == "bond0", "on the master: what the others reach"
        assert leading_to_master(second.facts.network, "gpu-a") == "eno1"
        assert leading_to_master(second.facts.network, "elsewhere") is None


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        ("sm_86", (8, 9), True),
        ("sm_89", (8, 6), False),
        ("sm_80", (9, 0), False),
        ("sm_90", (8, 9), False),
        ("compute_80", (12, 0), True),
        ("compute_90", (8, 0), False),
        ("sm_90a", (9, 0), True),
        ("sm_90a", (9, 1), False),
        ("compute_90a", (10, 0), False),
        ("sm_100f", (10, 3), True),
        ("sm_100f", (12, 0), False),
        ("sm_120", (12, 0), True),
        ("gfx90a", (9, 0), False),
        ("", (9, 0), False),
    ],
)
def test_what_a_build_runs_on(built: str, capability: tuple[int, int], runs: bool) -> None:
    assert runs_on([built], capability) is runs


@pytest.mark.parametrize(
    ("answers", "differ"),
    [
        ([("192.0.2.1",), ("192.0.2.1",)], False),
        ([("192.0.2.1",), ("192.0.2.2",)], True),
        ([("192.0.2.1", "192.0.2.2"), ("192.0.2.2",)], False),
        ([("192.0.2.1",), ("2001:db8::1",)], False),
        ([("2001:db8::1",), ("2001:db8::2",)], True),
        ([("fe80::1",), ("fe80::2",)], False),
        ([("not an address",), ("192.0.2.2",)], False),
        ([("192.0.2.1",)], False),
        ([], False),
    ],
)
def test_answers_that_cannot_be_one_machine(answers: list[tuple[str, ...]], differ: bool) -> None:
    assert disagree(answers) is differ


class TestPages:
    def test_every_check_has_a_page_and_an_example(self) -> None:
        pages = catalogue()
        assert [entry.name for entry in pages] == sorted(entry.name for entry in pages)
        for entry in pages:
            assert entry.summary.endswith(".") and len(entry.summary) < 120, entry.name
            assert [title for title, _ in entry.sections] == ["Why it matters", "How to fix it", "Source"], entry.name
            assert all(text for _, text in entry.sections), entry.name
            example = example_for(entry.name)
            assert example.message and example.why and isinstance(example.severity, Severity)

    def test_one_page(self) -> None:
        shown = page("low-shm")
        assert (shown.name, shown.severity, shown.since, shown.per_host) == ("low-shm", Severity.WARNING, "0.1", True)
        with pytest.raises(UnknownCheckError):
            page("low-shn")


class TestVariables:
    def test_the_table_is_whole(self) -> None:
        table = variables()
        assert len(table.nccl) > 260
        assert table.nccl["NCCL_IB_DISABLE"] == ("2.3.5", None)
        assert table.nccl["NCCL_TREE_THRESHOLD"] == ("2.4.2", "2.4.8")
        assert all(new in table.torch for new, _ in table.renamed.values())
        assert not set(table.nccl) & set(table.renamed)
        assert not set(table.nccl) & set(table.not_read)
        assert not [name for name in table.nccl if name.startswith(table.plugins)]
