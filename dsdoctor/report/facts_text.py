"""The facts of hosts as text: one block a host, one paragraph a section, whatever the section holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dsdoctor.escape import escape, escaped
from dsdoctor.facts import Snapshot
from dsdoctor.report.layout import Look

_SHOWN = 10  # entries of a long list
_Value = Any


def render(snapshots: Sequence[Snapshot], lost: Mapping[str, str], look: Look, sections: Sequence[str] = ()) -> str:
    """All that is known of each host; `lost` are the hosts that could not be examined, with the reason.

    With `sections` only these are shown, and their lists in full length.
    """
    blocks = ["\n".join(_host(escaped(snapshot), look, sections)) for snapshot in snapshots]
    blocks += [
        f"{look.paint(escape(name), 'bold')}  could not be examined: {escape(why)}" for name, why in lost.items()
    ]
    return "\n\n".join(blocks) + "\n"


def _host(snapshot: Snapshot, look: Look, sections: Sequence[str]) -> Iterator[str]:
    yield look.paint(snapshot.host, "bold")
    origin = ", ".join(word for word in (snapshot.origin, snapshot.recorded_at) if word)
    if origin:
        yield from look.paragraph(origin, "  ")
    for name in sections or snapshot.sections:
        section = snapshot.sections.get(name)
        if section is None:
            yield f"  {look.paint(name, 'bold')}: not in this snapshot"
        elif section.error is not None:
            yield from look.paragraph(f"{look.paint(name, 'bold')}: not known, {section.error}", "  ", "    ")
        else:
            yield f"  {look.paint(name, 'bold')}"
            yield from _tree(section.value, "    ", look, 0 if sections else _SHOWN)


def _tree(value: _Value, indent: str, look: Look, limit: int) -> Iterator[str]:
    """A mapping line by line, a list entry by entry, anything else as it is."""
    if isinstance(value, dict):
        # A mapping of rows (requirements by package) is a long list as well; one of fields is never cut.
        rows = bool(limit) and len(value) > limit and all(isinstance(item, dict) for item in value.values())
        shown = list(value.items())[:limit] if rows else list(value.items())
        width = max((len(str(key)) for key, _ in shown), default=0)
        for key, item in shown:
            yield from _entry(str(key), item, width, indent, look, limit)
        if len(shown) < len(value):
            yield f"{indent}{look.mark('more')} {len(value) - len(shown)} more (--section shows all)"
    elif isinstance(value, list):
        yield from _entries(value, indent, look, limit)
    else:
        yield from look.paragraph(_plain(value), indent)


def _entry(key: str, item: _Value, width: int, indent: str, look: Look, limit: int) -> Iterator[str]:
    head = f"{indent}{key:<{min(width, 28)}}  "
    if not isinstance(item, (dict, list)):
        yield from look.paragraph(_plain(item, key), head, indent + "  ")
    elif not item:
        yield f"{head}-"
    elif isinstance(item, list) and not any(isinstance(each, (dict, list)) for each in item):
        shown = item[:limit] if limit else item
        more = f" and {len(item) - len(shown)} more" if len(shown) < len(item) else ""
        yield from look.paragraph(", ".join(map(_plain, shown)) + more, head, indent + "  ")
    else:
        yield f"{indent}{key}"
        yield from _tree(item, indent + "  ", look, limit)


def _entries(items: list[_Value], indent: str, look: Look, limit: int) -> Iterator[str]:
    shown = items[:limit] if limit else items
    for item in shown:
        yield from look.paragraph(_one_line(item), f"{indent}{look.mark('dot')} ", indent + "    ")
    if len(shown) < len(items):
        yield f"{indent}{look.mark('more')} {len(items) - len(shown)} more (--section shows all)"


def _one_line(value: _Value) -> str:
    """A list's entry on one line: name and version first, then `key=value` words, without those that say nothing."""
    if isinstance(value, dict):
        bare = [str(value[key]) for key in ("name", "version") if value.get(key)]
        rest = [
            f"{key}={_one_line(item)}"
            for key, item in value.items()
            if key not in ("name", "version") and item not in (None, "", [], {}, False)
        ]
        return "  ".join([" ".join(bare), *rest] if bare else rest)
    if isinstance(value, list):
        return "[" + ", ".join(map(_one_line, value)) + "]"
    return _plain(value)


def _plain(value: _Value, key: str = "") -> str:
    if value is None:
        return "unlimited" if key in ("soft", "hard") else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_bytes") and isinstance(value, (int, float)):
        return f"{value} ({value / 2**30:.1f} GiB)"
    return str(value)
