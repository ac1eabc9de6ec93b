"""`dsdoctor explain`: what a check or a rule looks for, why it matters, how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dsdoctor.report.layout import Look


@click.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="List every check and every rule with a sentence each.")
def explain(name: str | None, everything: bool) -> int:
    """Explain a check or a rule: what it means and how to mend it.

    NAME is what a finding is called in a report, as in: dsdoctor explain duplicate-nccl
    """
    import sys

    from dsdoctor.terminal import look_of, write

    look = look_of(sys.stdout)
    if everything or name is None:
        if name is not None:
            raise click.UsageError("give a NAME or --all, not both")
        write(_everything(look))
        return 0
    write(_page(name.strip().lower().replace("_", "-"), look))
    return 0


def _page(name: str, look: Look) -> str:
    from dsdoctor.checks.catalogue import catalogue, example_for
    from dsdoctor.logs.rules import load_rules
    from dsdoctor.report.pages import check_page, rule_page

    pages = {page.name: page for page in catalogue()}
    rules = load_rules().rules
    texts = []
    if name in pages:
        texts.append(check_page(pages[name], example_for(name), look))
    if name in rules:
        texts.append(rule_page(rules[name], look))
    if not texts:
        raise click.UsageError(_unknown(name, [*pages, *rules]))
    return "\n".join(texts)


def _unknown(name: str, known: list[str]) -> str:
    import difflib

    close = [word for word in known if name and name in word][:4] or difflib.get_close_matches(name, known, n=3)
    near = f"did you mean {' or '.join(close)}?" if close else "dsdoctor explain --all lists what there is"
    return f"no check and no rule is called {name}; {near}"


def _everything(look: Look) -> str:
    from dsdoctor.checks.catalogue import catalogue
    from dsdoctor.logs.rules import fill, load_rules
    from dsdoctor.report.pages import listing

    checks = [(page.name, page.severity.value, page.summary) for page in catalogue()]
    rules = [(rule.name, rule.role, fill(rule.message, {})) for rule in load_rules().rules.values()]
    parts = []
    for title, rows in (("Checks (dsdoctor check)", checks), ("Rules (dsdoctor diagnose)", sorted(rules))):
        parts.append(f"{look.paint(title, 'bold')}\n{listing(rows, look) or 'none' + chr(10)}")
    return "\n".join(parts)
