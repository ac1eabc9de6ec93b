"""`dsdoctor facts`: what the probe learns about the hosts, unjudged."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from dsdoctor.cli._options import facts_options, host_choice, host_options, with_options

if TYPE_CHECKING:
    from dsdoctor.cluster import Cluster
    from dsdoctor.facts import Snapshot

SCHEMA = "dsdoctor.hosts/1"


@click.command()
@with_options(
    *host_options(),
    *facts_options(),
    click.option("--section", "sections", multiple=True, metavar="NAME", help="Only this section, in full length."),
    click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True),
    click.option("--output", metavar="FILE", help="Write the facts into a file, whole or not at all."),
)
def facts(**options: Any) -> int:
    """Print the facts of the hosts: versions, GPUs, network, limits and so on.

    Nothing is judged and nothing is changed. The exit code is 3 when a host could not be examined.
    """
    from dsdoctor.cli._examined import examined, keep_facts, without_names
    from dsdoctor.cli._failures import UNEXAMINED
    from dsdoctor.terminal import deliver

    choice = host_choice(options)
    sections = _known(options["sections"])
    cluster = examined(choice, options["recorded"])
    if options["redact"]:
        cluster = without_names(cluster)
    if options["keep"] is not None:
        keep_facts(cluster, options["keep"])
    deliver(_rendered(cluster, sections, options), options["output"])
    return 0 if len(cluster.examined) == len(cluster) else UNEXAMINED


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    """The sections asked for. Raises UsageError for one that there is not."""
    import difflib

    from dsdoctor.facts import HostFacts

    known = HostFacts.sections()
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            near = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
            raise click.UsageError(f"there is no section {name}; {near}")
    return names


def _rendered(cluster: Cluster, sections: tuple[str, ...], options: dict[str, Any]) -> str:
    from dsdoctor.report.assemble import host_states
    from dsdoctor.report.facts_text import render
    from dsdoctor.report.layout import Look
    from dsdoctor.terminal import look_of

    snapshots = [member.facts.snapshot for member in cluster if member.facts is not None]
    states = host_states(cluster)
    if options["form"] == "text":
        look = look_of(sys.stdout) if options["output"] in (None, "-") else Look()
        lost = {state.name: state.error or "" for state in states if not state.reachable}
        return render(snapshots, lost, look, sections)
    import json

    import msgspec

    body = {
        "schema": SCHEMA,
        "hosts": msgspec.to_builtins(states),
        "snapshots": [msgspec.to_builtins(_only(snapshot, sections)) for snapshot in snapshots],
    }
    return json.dumps(body, indent=2)


def _only(snapshot: Snapshot, sections: tuple[str, ...]) -> Snapshot:
    import msgspec

    if not sections:
        return snapshot
    kept = {name: section for name, section in snapshot.sections.items() if name in sections}
    return msgspec.structs.replace(snapshot, sections=kept)
