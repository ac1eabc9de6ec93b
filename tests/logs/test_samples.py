"""Logs as launchers, schedulers, collectors and loggers really write them, given as files and folders."""

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsdoctor.logs.diagnose import conclude
from dsdoctor.logs.rules import RuleSet, load_rules
from dsdoctor.report.model import Report
from dsdoctor.run.read_logs import read_logs

HERE = Path(__file__).parent / "samples"
SAMPLES: dict[str, dict[str, Any]] = {each["path"]: each for each in yaml.safe_load((HERE / "index.yaml").read_text())}
RULES: RuleSet = load_rules()


def diagnosed(path: Path) -> Report:
    return conclude(read_logs([path], RULES), RULES)


@pytest.mark.parametrize("name", SAMPLES)
def test_cause_place_and_line(name: str) -> None:
    expected = SAMPLES[name]
    report = diagnosed(HERE / name)
    verdict = report.verdict
    assert verdict is not None
    assert verdict.cause == expected.get("cause", "embedding-index-out-of-range")
    assert (verdict.host, verdict.rank) == (expected.get("host"), expected.get("rank"))
    assert verdict.source is not None and verdict.source.endswith(expected["source"])
    if "line" in expected:
        assert verdict.line == expected["line"]
    if "text" in expected:
        assert verdict.text == expected["text"]
    assert any(note.startswith("Earlier attempts") for note in report.notes) == expected.get("earlier", False)


def test_every_sample_has_its_expectation() -> None:
    named = {HERE / name for name in SAMPLES}
    files = [path for path in HERE.rglob("*") if path.is_file() and path.name != "index.yaml"]
    assert not [path for path in files if not named & {path, *path.parents}]


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_the_same_tree_in_an_archive(tmp_path: Path, form: str) -> None:
    archive = tmp_path / f"logs.{form}"
    if form == "tar":
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(HERE / "torchrun", "torchrun")
    else:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted((HERE / "torchrun").rglob("*")):
                packed.write(path, path.relative_to(HERE))
    report = diagnosed(archive)
    assert report.verdict is not None
    assert (report.verdict.cause, report.verdict.rank) == ("embedding-index-out-of-range", 1)
    assert report.verdict.source is not None and "attempt_1/1/" in report.verdict.source


def test_the_cells_of_a_notebook_are_judged_each_by_itself() -> None:
    report = diagnosed(HERE / "train.ipynb")
    assert [finding.name for finding in report.findings] == ["embedding-index-out-of-range", "flash-attn-not-installed"]
    cited = [(each.line, each.text) for finding in report.findings for each in finding.evidence]
    lines = (HERE / "train.ipynb").read_text().splitlines()
    assert all(text.split(": ")[-1] in lines[(line or 0) - 1] for line, text in cited)


def test_what_a_notebook_says_in_prose_and_code_is_no_log() -> None:
    text = (HERE / "train.ipynb").read_text()
    assert "CUDA out of memory" in text
    assert all(finding.name != "cuda-oom" for finding in diagnosed(HERE / "train.ipynb").findings)
