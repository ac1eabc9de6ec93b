"""The forms a report can take, each the file of its name beside this one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsdoctor.report.layout import Look
    from dsdoctor.report.model import Report, Severity

FORMATS = ("text", "json", "markdown", "html", "junit", "sarif")


def render(report: Report, form: str, look: Look, *, verbose: bool, fail_on: Severity) -> str:
    """The report in one of :data:`FORMATS`. `look` and `verbose` are for text, `fail_on` for JUnit's failures."""
    module = import_module(f"dsdoctor.report.{form}")
    settings: dict[str, object] = {}
    if form == "text":
        settings = {"look": look, "verbose": verbose}
    elif form == "junit":
        settings = {"fail_on": fail_on}
    text: str = module.render(report, **settings)
    return text
