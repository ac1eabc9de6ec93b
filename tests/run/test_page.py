"""run.html: there after every change of a run's state, whatever the job has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdoctor.run.directory import RunDirectory
from dsdoctor.run.execute import execute
from dsdoctor.run.page import MOST_BYTES, write_page
from tests.run.plans import Seen, directory_for, plan_of, transports_of

GOOD = '{"tasks": ["a", "b"], "accuracy": [[91.5]], "method": "olora"}'


def run_of(tmp_path: Path, results: str) -> tuple[RunDirectory, str]:
    """Carry out two stages, the first of which leaves results.json; the second fails."""
    folder = str(tmp_path / "demo-1" / "outputs" / "1-one")
    write = (
        f"mkdir -p {folder} && cat > {folder}/results.json <<'EOF'\n{results}\nEOF\necho '<svg/>' > {folder}/curves.svg"
    )
    scripts = {"one": {"a": write}, "two": {"a": "exit 3"}}
    run = directory_for(scripts, tmp_path)
    plan = plan_of(scripts, run.path)
    execute(plan, transports_of(plan), run, Seen())
    return run, (run.path / "run.html").read_text()


def test_a_run_that_failed_has_a_page_with_what_was_measured_before(tmp_path: Path):
    _, html = run_of(tmp_path, GOOD)
    assert "demo: failed, 1 of 2 stages done" in html
    assert "91.50" in html
    assert "data:image/svg+xml;base64,PHN2Zy8+" in html
    assert "ended with exit code 3" in html


@pytest.mark.parametrize("results", ["", "[]", "{", "x" * (MOST_BYTES + 1)], ids=["empty", "list", "broken", "huge"])
def test_results_of_another_form_cost_the_page_nothing_else(tmp_path: Path, results: str):
    run, _ = run_of(tmp_path, "")
    (run.path / "outputs" / "1-one" / "results.json").write_text(results)
    write_page(run, plan_of({"one": {"a": ""}}, run.path), run.state())
    html = (run.path / "run.html").read_text()
    assert "demo: failed" in html
    assert "<img" not in html
    assert "Accuracy" not in html


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_out_of_the_outputs_is_not_followed(tmp_path: Path, linked: str):
    run, html = run_of(tmp_path, GOOD)
    assert "data:image" in html
    folder = run.path / "outputs" / "1-one"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in list(folder.iterdir()):
        path.rename(elsewhere / path.name)
    if linked == "file":
        for path in elsewhere.iterdir():
            (folder / path.name).symlink_to(path)
    else:
        folder.rmdir()
        folder.symlink_to(elsewhere)
    write_page(run, plan_of({"one": {"a": ""}}, run.path), run.state())
    html = (run.path / "run.html").read_text()
    assert "data:image" not in html
    assert "91.50" not in html


def test_a_page_that_cannot_be_written_costs_the_run_nothing(tmp_path: Path):
    scripts = {"one": {"a": "true"}}
    run = directory_for(scripts, tmp_path)
    (run.path / "run.html").mkdir()
    plan = plan_of(scripts, run.path)
    assert execute(plan, transports_of(plan), run, Seen()).status == "done"
