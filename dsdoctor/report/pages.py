"""The pages of `explain`: what a check or a rule means, as text for a screen.

The words come from the check's docstring and from the rule's file; nothing is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dsdoctor.escape import escaped
from dsdoctor.report.layout import Look, cells
from dsdoctor.report.model import Fix
from dsdoctor.report.text import severity_word, way_out

if TYPE_CHECKING:
    from dsdoctor.checks.catalogue import Example, Page
    from dsdoctor.logs.rules import Rule

_READABLE = 96  # columns: longer lines are hard to read on


def check_page(page: Page, example: Example, look: Look) -> str:
    """What there is to say about a check, ending with how to run it alone and how to let it pass."""
    look = _narrowed(look)
    lines = [
        f"{look.paint(page.name, 'bold')} {look.mark('dash')} check, {page.severity.value}, since {page.since}",
        "",
        *look.paragraph(page.summary),
    ]
    for title, text in page.sections:
        lines += ["", look.paint(title, "bold"), *_prose(text, look)]
    where = f"  {', '.join(example.hosts)}" if example.hosts else ""
    lines += ["", look.paint("Example", "bold"), *look.paragraph(example.why[:1].upper() + example.why[1:], "  ")]
    lines += [f"  {severity_word(example.severity, look)} {page.name}{where}"]
    lines += look.paragraph(example.message, "    ")
    lines += [f"        {line}" for command in example.commands for line in command.split("\n")]
    lines += [f"        {name}={value}" for name, value in example.env.items()]
    option = f" {page.option}" if page.option else ""
    lines += ["", f"Run it alone:  dsdoctor check --select {page.name}{option}"]
    lines += [f"Let it pass:   dsdoctor check --ignore {page.name}"]
    return "\n".join(lines) + "\n"


def rule_page(rule: Rule, look: Look) -> str:
    """What there is to say about a rule of `diagnose`."""
    from dsdoctor.logs.rules import fill

    look = _narrowed(look)
    rule = escaped(rule)
    role = {"cause": "a cause", "symptom": "a symptom of a cause elsewhere", "benign": "harmless"}[rule.role]
    lines = [
        f"{look.paint(rule.name, 'bold')} {look.mark('dash')} rule of diagnose, {role}",
        "",
        *look.paragraph(fill(rule.message, {})),
        "",
        look.paint("Why", "bold"),
        *_prose(rule.why, look),
    ]
    if rule.fixes:
        lines += ["", look.paint("What to do", "bold")]
    for fix in rule.fixes:
        filled = Fix(fill(fix.title, {}), tuple(fill(line, {}) for line in fix.commands), fix.env)
        lines += way_out(filled, look, "Fix" if fix is rule.fixes[0] else "Or")
    words = [word for pattern in rule.patterns for word in pattern.words]
    lines += ["", look.paint("Told by lines with", "bold"), *(f"  {word}" for word in dict.fromkeys(words))]
    if rule.references:
        lines += ["", look.paint("Read more", "bold"), *(f"  {reference}" for reference in rule.references)]
    if rule.checks:
        lines += ["", f"Seen beforehand by:  dsdoctor check --select {' --select '.join(rule.checks)}"]
    return "\n".join(lines) + "\n"


def listing(rows: Sequence[tuple[str, str, str]], look: Look) -> str:
    """Names, a word about each and a sentence, in columns; the sentence is wrapped beside the names."""
    if not rows:
        return ""
    first = max(cells(name) for name, _, _ in rows)
    second = max(cells(word) for _, word, _ in rows)
    lines: list[str] = []
    for name, word, text in rows:
        head = f"{name:<{first}}  {word:<{second}}  "
        if look.width is not None and look.width - len(head) < 30:  # too narrow for columns
            lines += [f"{name}  {word}".rstrip(), *look.paragraph(text, "    ")]
        else:
            lines += look.paragraph(text, head, " " * len(head))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _prose(text: str, look: Look) -> Iterator[str]:
    """Paragraphs wrapped; lists kept as lists; indented lines (code) left alone."""
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.split("\n")
        if all(line.startswith("    ") for line in lines):
            yield from (f"  {line}" for line in lines)
        elif lines[0].startswith(("- ", "* ")):
            for item in re.split(r"\n(?=[-*] )", block):
                yield from look.paragraph(item, "  ", "    ")
        else:
            yield from look.paragraph(block, "  ")


def _narrowed(look: Look) -> Look:
    width = _READABLE if look.width is None else min(look.width, _READABLE)
    return Look(width, look.color, look.unicode)
