"""What the checks of the environment stand on: who differs, what a requirement means, what builds an op."""

from __future__ import annotations

import ast
import importlib.util
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.checks import installed, toolkit
from dsdoctor.checks.broken_requirements import _AT_IMPORT, _AT_IMPORT_SINCE_4_34
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import find, run_these
from dsdoctor.checks.majority import common, strays, told
from dsdoctor.checks.op_built_at_start import _BUILD
from dsdoctor.checks.ops import needed
from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.facts import HostFacts, Section, Snapshot
from dsdoctor.report.model import Severity
from tests.checks.building import CaseJob, resolved


def host(name: str = "a", **sections: Any) -> HostFacts:
    base = {
        "os": {"hostname": name, "kernel": "6.1", "machine": "x86_64"},
        "python": {"version": "3.11.9", "executable": "/env/bin/python"},
        "torch": {"version": None},
    }
    made = {key: Section(value=value) for key, value in {**base, **sections}.items()}
    return HostFacts(Snapshot(host=name, sections=made))


def packages(**versions: str) -> dict[str, Any]:
    rows = [{"name": name.replace("_", "-"), "version": version} for name, version in versions.items()]
    return {"distributions": [*rows, {"name": "pip", "version": "25.0"}]}


def cluster(**hosts: dict[str, str]) -> Cluster:
    members = [
        Member(HostEntry(name, 2), Reach(True), host(name, packages=packages(**versions)))
        for name, versions in hosts.items()
    ]
    return Cluster(tuple(members))


def test_the_majority_and_the_odd_ones() -> None:
    assert (common({}), strays({}), told({})) == (None, [], "")
    assert (common({"a": "1", "b": "2"}), strays({"a": "1", "b": "2"})) == (None, ["a", "b"])
    seen = {"gpu1": "1", "gpu2": "2", "gpu3": "1"}
    assert (common(seen), strays(seen), told(seen)) == ("1", ["gpu2"], "1 on gpu1, gpu3; 2 on gpu2")
    many = {f"gpu{number:02}": "1" for number in range(1, 65)} | {"gpu07": "2"}
    assert told(many) == "1 on gpu[01-06,08-64]; 2 on gpu07"


def test_of_several_hosts_the_odd_one_is_named_and_mended() -> None:
    fleet = cluster(
        a={"transformers": "4.56.2"},
        b={"transformers": "4.44.2"},
        c={"transformers": "4.56.2"},
        d={"transformers": "4.56.2"},
    )
    (finding,) = run_these([find("packages-differ")], fleet).findings
    assert finding.message == "transformers differs between the hosts: 4.56.2 on a, c, d; 4.44.2 on b"
    assert (finding.hosts, finding.severity) == (("b",), Severity.WARNING)
    assert finding.fix[0].commands == ("ssh b '/env/bin/python -m pip install transformers==4.56.2'",)
    assert [evidence.source for evidence in finding.evidence] == ["a", "b"]


def test_a_build_of_torch_comes_from_its_own_index() -> None:
    members = [
        Member(
            HostEntry(name, 2), Reach(True), host(name, packages=packages(torch="2.5.1"), torch={"version": version})
        )
        for name, version in (("a", "2.5.1+cu124"), ("b", "2.5.1+cu121"), ("c", "2.5.1+cu124"))
    ]
    (finding,) = run_these([find("packages-differ")], Cluster(tuple(members))).findings
    assert (finding.hosts, finding.severity) == (("b",), Severity.WARNING)
    assert "torch==2.5.1 --index-url https://download.pytorch.org/whl/cu124" in finding.fix[0].commands[0]


@pytest.mark.parametrize(
    ("there", "severity"),
    [
        (({"numpy": "1.26.4"}, {"numpy": "2.0.0"}), Severity.WARNING),
        (({"numpy": "1.26.4"}, {"numpy": "1.23.5"}), None),
        (({"flash_attn": "2.5.8"}, {}), Severity.INFO),
        (({"xxhash": "3.0"}, {"xxhash": "1.0"}), None),
        (({"peft": "not a version"}, {"peft": "0.17.1"}), Severity.INFO),
        (({}, {}), None),
    ],
)
def test_what_counts_of_a_difference(there: tuple[dict[str, str], ...], severity: Severity | None) -> None:
    outcome = run_these([find("packages-differ")], cluster(a=there[0], b=there[1]))
    assert [finding.severity for finding in outcome.findings] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("wanted", "version", "allowed"),
    [
        (">=2.0", "2.1.2+cu121", True),
        ("==2.1.2", "2.1.2+cu121", True),
        ("<2", "2.0.0rc1", False),
        (">=2.6", "2.6.0a0+ecf3bae40a.nv25.01", True),
        (">=2.7", "2.6.0a0+ecf3bae40a.nv25.01", False),
        (">=1.0", "nonsense", True),
        ("nonsense", "1.0", True),
        ("", "1.0.dev1", True),
    ],
)
def test_ranges_of_versions(wanted: str, version: str, allowed: bool) -> None:
    assert installed.allows(wanted, version) is allowed


def test_requirements_that_are_none_or_go_in_circles() -> None:
    rows = {
        "a": {"requires": ["b[x]", "not a requirement !!", "c; extra == 'y'", "gone; python_version ~= 'x'"]},
        "b": {"requires": ["a[y]; extra == 'x'"]},
    }
    facts = host(packages=packages(a="1", b="1"), requirements={"packages": rows})
    assert [(one.owner, one.requirement, one.extra) for one in installed.unmet(facts)] == [("a", "c", "y")]


def test_an_address_is_met_by_whatever_is_installed() -> None:
    rows = {"a": {"requires": ["b @ https://example.com/b.zip", "opencv-python>=4"]}}
    facts = host(packages=packages(a="1", b="0.1", opencv_python_headless="4.10.0"), requirements={"packages": rows})
    assert installed.unmet(facts) == ()


def job(config: str) -> JobContext:
    return JobContext(resolved(CaseJob(deepspeed=config)))


OFFLOAD = '"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}'


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("{}", []),
        ('{"optimizer": {"type": "AdamW"}}', ["fused_adam"]),
        ('{"optimizer": {"type": "SGD"}}', []),
        ('{"optimizer": "AdamW"}', []),
        ('{"optimizer": {"type": "AdamW"}, ' + OFFLOAD, ["cpu_adam"]),
        ("{" + OFFLOAD, ["cpu_adam"]),
        ('{"zero_force_ds_cpu_optimizer": false, ' + OFFLOAD, []),
        ('{"optimizer": {"type": "Adagrad"}}', []),
        ('{"optimizer": {"type": "Adagrad"}, ' + OFFLOAD, ["cpu_adagrad"]),
        ('{"optimizer": {"type": "Adam", "params": {"torch_adam": true}}, ' + OFFLOAD, []),
        (
            '{"zero_optimization": {"offload_optimizer": {"device": "none"}, "offload_param": {"device": "nvme"}}}',
            ["async_io"],
        ),
        ('{"zero_optimization": {"zero_quantized_weights": true, "zero_quantized_gradients": true}}', ["quantizer"]),
        ('{"zero_optimization": [1, 2]}', []),
    ],
)
def test_the_ops_that_a_config_needs(config: str, names: list[str]) -> None:
    assert [op.name for op in needed(job(config))] == names


def folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"needs the package {package}")
    return Path(found.origin).parent


def literal(text: str, name: str) -> Any:
    """What a module gives a name to; other names in it stand for themselves."""
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = ast.unparse(node.value)  # type: ignore[union-attr,attr-defined]
            return ast.literal_eval(value.replace("MINIMUM_GCC_VERSION", "(5, 0, 0)"))
    raise AssertionError(f"there is no {name}")


def test_compilers_as_the_installed_torch_bounds_them() -> None:
    table = literal((folder("torch") / "utils/cpp_extension.py").read_text(), "CUDA_GCC_VERSIONS")
    ours = {cuda: toolkit.newest_gcc(cuda) for cuda in table}
    theirs = {cuda: newest[0] - 1 for cuda, (_, newest) in table.items()}
    # 12.3's own header stops at gcc 12; there is no CUDA 12.7.
    assert {cuda: gcc for cuda, gcc in ours.items() if gcc != theirs[cuda]} == {"12.3": 12, "12.7": None}


def test_minor_versions_as_the_installed_deepspeed_accepts_them() -> None:
    root = folder("deepspeed")
    table = literal((root / "ops/op_builder/builder.py").read_text(), "cuda_minor_mismatch_ok")
    for one, other in product(["11.8", "12.1", "12.6", "12.7", "12.9", "13.0", "13.1"], repeat=2):
        known = table.get(int(one.split(".")[0]), [])
        assert toolkit.accepted("0.19.8", one, other) or not (one in known and other in known)
        assert not toolkit.accepted("0.19.8", "13.0", other)
    assert toolkit.accepted("0.14.3", "12.4", "12.1") and not toolkit.accepted("0.14.2", "12.4", "12.1")


@pytest.mark.parametrize(
    ("cuda", "card", "builds"),
    [
        ("11.4", (8, 6), True),
        ("11.4", (8, 9), False),
        ("11.8", (9, 0), True),
        ("12.6", (12, 0), False),
        ("12.8", (12, 0), True),
        ("13.0", (7, 0), False),
        ("13.0", (7, 5), True),
        ("12.6", (7, 0), True),
        ("unknown", (9, 0), True),
    ],
)
def test_cards_that_a_toolkit_builds_for(cuda: str, card: tuple[int, int], builds: bool) -> None:
    assert toolkit.builds_for(cuda, card) is builds


def test_ops_and_the_variables_that_build_them_are_deepspeeds() -> None:
    builders = folder("deepspeed") / "ops/op_builder"
    texts = [path.read_text() for path in builders.rglob("*.py")]
    known = {
        name: variable
        for text in texts
        for variable, name in re.findall(r'BUILD_VAR = "DS_BUILD_(\w+)"\s+NAME = "(\w+)"', text)
    }
    ours = {"fused_adam", "cpu_adam", "fused_lamb", "fused_lion", "cpu_lion", "cpu_adagrad", "async_io", "quantizer"}
    assert ours <= set(known)
    assert {name: known[name] for name in ours} == {name: _BUILD.get(name, name.upper()) for name in ours}


def test_what_transformers_compares_at_its_import() -> None:
    source = (folder("transformers") / "dependency_versions_check.py").read_text()
    known = set(literal(source, "pkgs_to_check_at_runtime")) - {"python"}
    assert known <= _AT_IMPORT | _AT_IMPORT_SINCE_4_34
