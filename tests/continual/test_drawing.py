"""The pictures of the accuracy matrix: well-formed, every known figure in them, and no text that becomes markup."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from continual import drawing, metrics
from hypothesis import given
from hypothesis import strategies as st

from tests.continual.test_metrics import OLORA, TASKS

STAGES = [f"{number} {task}" for number, task in enumerate(TASKS, 1)]
NS = "{http://www.w3.org/2000/svg}"


def read(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def test_a_heat_map_has_every_cell_and_says_what_was_not_measured():
    picture = read(drawing.heat_map(OLORA, STAGES, TASKS))
    cells = picture.findall(f"{NS}rect")
    assert len(cells) == 16
    titles = [cell.findtext(f"{NS}title") for cell in cells]
    assert titles[0] == "dbpedia after 1 dbpedia: 98.71"
    assert sum("not measured" in (title or "") for title in titles) == 6
    shown = [text.text for text in picture.findall(f"{NS}text")]
    assert {"98.7", "56.1", "88.6", "4 agnews", "yahoo"} <= set(shown)


def test_more_accuracy_is_darker():
    def fill(value: float) -> int:
        cell = read(drawing.heat_map([[value]], ["1 a"], ["a"])).find(f"{NS}rect")
        assert cell is not None
        return int(cell.attrib["fill"][1:3], 16)

    assert fill(0) > fill(50) > fill(100)


def test_a_curve_for_each_task_with_a_gap_where_a_stage_is_missing():
    matrix = [[80.0], [70.0, 50.0], None, [60.0, 40.0, 30.0, 90.0]]
    picture = read(drawing.curves(matrix, STAGES, TASKS))
    lines = [line.attrib["points"] for line in picture.findall(f"{NS}polyline")]
    assert len(lines) == 2 + 2 + 1 + 1  # the first two tasks in two stretches each
    assert len(picture.findall(f"{NS}circle")) == 3 + 2 + 1 + 1
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in lines[0].split())
    assert x2 - x1 == drawing.PLOT[0] / 3
    assert y2 - y1 == drawing.PLOT[1] * 0.1  # ten points lower


def test_one_stage_alone_is_drawn():
    assert read(drawing.curves([[55.5]], ["1 a"], ["a"])).findall(f"{NS}circle")


def test_fifteen_tasks_are_told_apart():
    names = [f"t{number}" for number in range(15)]
    matrix = [[50.0] * (stage + 1) for stage in range(15)]
    lines = read(drawing.curves(matrix, names, names)).findall(f"{NS}polyline")
    assert len({(line.attrib["stroke"], line.attrib["stroke-dasharray"]) for line in lines}) == 15


@given(st.text(min_size=1, max_size=30))
def test_no_name_breaks_a_picture(name: str):
    for draw in (drawing.heat_map, drawing.curves):
        picture = read(draw([[50.0]], [name], [name]))
        assert not picture.findall(f".//{NS}script")


def test_a_hostile_name_stays_a_text():
    text = drawing.heat_map([[1.0]], ["</text><script>alert(1)</script>"], ['"><a onload=x>'])
    assert "<script" not in text
    assert "<a " not in text


def test_figures_out_of_range_stay_within_the_frame():
    picture = read(drawing.curves([[-5.0], [130.0, 50.0]], STAGES[:2], TASKS[:2]))
    heights = [float(dot.attrib["cy"]) for dot in picture.findall(f"{NS}circle")]
    assert max(heights) - min(heights) == drawing.PLOT[1]
    assert metrics.entry([[1.0]], 3, 0) is None
