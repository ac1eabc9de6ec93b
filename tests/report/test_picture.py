"""The picture for the README: a report that went through JSON, drawn as a terminal."""

from xml.etree import ElementTree

import msgspec
import pytest

from dsdoctor.report.json import render
from dsdoctor.report.picture import main, read_report, svg
from tests.report.reports import ALL, ILL


@pytest.mark.parametrize("name", sorted(ALL))
def test_json_holds_the_whole_report(name: str) -> None:
    seconds = round(ALL[name].seconds, 3)
    assert read_report(render(ALL[name])) == msgspec.structs.replace(ALL[name], seconds=seconds)


def test_the_picture_shows_the_report_and_fetches_nothing() -> None:
    picture = svg(ILL, "dsdoctor check --hostfile hosts")
    text = "".join(ElementTree.fromstring(picture).itertext()).replace("\xa0", " ")
    assert "dsdoctor check --hostfile hosts" in text
    assert "duplicate-nccl" in text
    assert "@font-face" not in picture
    assert picture == svg(ILL, "dsdoctor check --hostfile hosts")


def test_it_is_written(tmp_path, monkeypatch) -> None:
    (tmp_path / "report.json").write_text(render(ILL))
    monkeypatch.setattr("sys.argv", ["picture", str(tmp_path / "report.json"), str(tmp_path / "out.svg"), "dsdoctor"])
    main()
    assert (tmp_path / "out.svg").read_text() == svg(ILL, "dsdoctor")
