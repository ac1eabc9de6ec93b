"""Pictures of the accuracy matrix as SVG: a heat map, and a curve for each task over the stages.

Written directly: a figure of rectangles and lines needs no drawing library on a training host. Every text is quoted,
no style comes from outside, and there is a light and a dark version in one file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from continual.metrics import Matrix, entry

LETTER = 7.0  # the width of a letter at 12 px, generously
CELL = (58.0, 28.0)
PLOT = (420.0, 260.0)
MARGIN = 10.0
# Okabe and Ito's colours, told apart with every common colour blindness, without black and yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("none", "7 3", "2 3")
STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#1c2128}.q{fill:#59636e}.g{stroke:#d5dae0}.n{fill:#eef0f3}"
    "@media(prefers-color-scheme:dark){text{fill:#e3e6ea}.q{fill:#9aa5b1}.g{stroke:#343b44}.n{fill:#262c33}}</style>"
)


def heat_map(matrix: Matrix, stages: Sequence[str], titles: Sequence[str]) -> str:
    """The matrix as an SVG, a row a stage and a column a task; a cell not measured is grey.

    `stages` and `titles` are what stands beside the rows and above the columns.
    """
    left = MARGIN + LETTER * max(len(text) for text in stages) + MARGIN
    top = MARGIN + LETTER * 0.75 * max(len(text) for text in titles) + 8  # the titles lean by 45 degrees
    width = left + CELL[0] * len(titles) + LETTER * 0.75 * len(titles[-1]) + MARGIN
    height = top + CELL[1] * len(stages) + MARGIN
    parts = []
    for column, title in enumerate(titles):
        x = left + CELL[0] * (column + 0.5)
        parts.append(
            f'<text x="{x:.1f}" y="{top - 8:.1f}" transform="rotate(-45 {x:.1f} {top - 8:.1f})">{_q(title)}</text>'
        )
    for row, stage in enumerate(stages):
        y = top + CELL[1] * row
        parts.append(f'<text x="{left - MARGIN:.1f}" y="{y + 18:.1f}" text-anchor="end">{_q(stage)}</text>')
        parts += [
            _cell(entry(matrix, row, column), left + CELL[0] * column, y, f"{title} after {stage}")
            for column, title in enumerate(titles)
        ]
    return _svg(width, height, "Accuracy in % of each task after each stage", parts)


def curves(matrix: Matrix, stages: Sequence[str], titles: Sequence[str]) -> str:
    """The accuracy of each task over the stages as an SVG; a stage that is missing is a gap in the line."""
    step = PLOT[0] / max(1, len(stages) - 1)
    leaning = [LETTER * 0.75 * len(text) for text in stages]  # the names below lean by 45 degrees, to the left
    left = max(44.0, *(reach + MARGIN - step * number for number, reach in enumerate(leaning)))
    top = MARGIN + 6
    labels = left + PLOT[0] + 16
    width = labels + 26 + LETTER * max(len(text) for text in titles) + MARGIN
    height = top + max(PLOT[1], 18.0 * len(titles)) + 16 + max(leaning) + MARGIN

    def point(stage: int, value: float) -> tuple[float, float]:
        return left + step * stage, top + PLOT[1] * (1 - min(max(value, 0.0), 100.0) / 100)

    parts = []
    for value in range(0, 101, 20):
        _, y = point(0, value)
        parts.append(f'<path class="g" d="M{left:.1f} {y:.1f}h{PLOT[0]:.1f}"/>')
        parts.append(f'<text class="q" x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    for number, stage in enumerate(stages):
        x, y = left + step * number, top + PLOT[1] + 14
        parts.append(
            f'<text class="q" x="{x:.1f}" y="{y:.1f}" text-anchor="end" transform="rotate(-45 {x:.1f} {y:.1f})">'
            f"{_q(stage)}</text>"
        )
    for task, title in enumerate(titles):
        stroke = f'stroke="{COLOURS[task % len(COLOURS)]}" stroke-dasharray="{DASHES[task // len(COLOURS) % 3]}"'
        for run in _runs(matrix, len(stages), task):
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (point(*each) for each in run))
            parts.append(f'<polyline points="{line}" fill="none" stroke-width="2" {stroke}/>')
            parts += [_dot(*point(*each), COLOURS[task % len(COLOURS)], f"{title} {each[1]:.2f}") for each in run]
        y = top + 8 + 18 * task
        parts.append(f'<path d="M{labels:.1f} {y:.1f}h20" stroke-width="2" {stroke}/>')
        parts.append(f'<text x="{labels + 26:.1f}" y="{y + 4:.1f}">{_q(title)}</text>')
    return _svg(width, height, "Accuracy in % of each task over the stages", parts)


def _runs(matrix: Matrix, stages: int, task: int) -> Iterator[list[tuple[int, float]]]:
    """The stretches of stages after which a task was measured."""
    run: list[tuple[int, float]] = []
    for stage in range(stages):
        value = entry(matrix, stage, task)
        if value is not None:
            run.append((stage, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _cell(value: float | None, x: float, y: float, what: str) -> str:
    box = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{CELL[0] - 2:.1f}" height="{CELL[1] - 2:.1f}" rx="3"'
    if value is None:
        return f'<rect {box} class="n"><title>{_q(what)}: not measured</title></rect>'
    share = min(max(value, 0.0), 100.0) / 100
    red, green, blue = (round(light + (dark - light) * share) for light, dark in ((232, 8), (240, 76), (250, 140)))
    ink = "#ffffff" if share > 0.66 else "#1c2128"
    return (
        f'<rect {box} fill="#{red:02x}{green:02x}{blue:02x}"><title>{_q(what)}: {value:.2f}</title></rect>'
        f'<text x="{x + CELL[0] / 2:.1f}" y="{y + 18:.1f}" text-anchor="middle" style="fill:{ink}">{value:.1f}</text>'
    )


def _dot(x: float, y: float, colour: str, what: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{_q(what)}</title></circle>'


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
    head += f'width="{width:.0f}" height="{height:.0f}" role="img"><title>{_q(title)}</title>{STYLE}\n'
    return head + "\n".join(parts) + "\n</svg>\n"


def _q(text: str) -> str:
    """Quoted for XML, which some control characters cannot be written in at all."""
    return escape("".join(letter if letter.isprintable() else "?" for letter in text))
