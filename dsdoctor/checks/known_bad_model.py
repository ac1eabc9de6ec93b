"""Models that are known to be broken."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks import tables
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.sights import names, sights
from dsdoctor.checks.tables import BadModel
from dsdoctor.cluster import Cluster
from dsdoctor.jobs.paths import named_paths
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def known_bad_model(cluster: Cluster | None, context: JobContext) -> Iterator[Finding | Skipped]:
    """The job uses a model whose published files are known to be broken.

    ## Why it matters
    decapoda-research's LLaMA names a tokenizer class that transformers never released ("Tokenizer class LLaMATokenizer
    does not exist or is not currently imported") and gives the begin and end of a text the wrong numbers: a model
    trained with them never stops where it should.

    ## How to fix it
    Take another copy of the model.

    ## Source
    The table in dsdoctor/checks/data/models.yaml has one for each entry.
    """
    table = tables.bad_models()
    for named in named_paths(context.job):
        bad = next((bad for bad in table if named.role == "model" and re.search(bad.name, named.path, re.I)), None)
        if bad is not None:
            yield _finding(
                bad, f"{named.argument}: {named.path}", [context.cite(f"{named.argument}: {named.path}")], ()
            )
    seen, skipped = sights(known_bad_model, cluster, context, "model") if cluster is not None else ([], [])
    yield from skipped
    for sight in seen:
        if any(re.search(bad.name, sight.named.path, re.I) for bad in table):
            continue
        for bad in table:
            having = [
                (member, path)
                for member, path in sight.found
                if bad.tokenizer_class and path.model and path.model.tokenizer_class == bad.tokenizer_class
            ]
            if having:
                seen_there = [
                    Evidence(
                        text=f"{path.at}/tokenizer_config.json: tokenizer_class {bad.tokenizer_class}", source=m.name
                    )
                    for m, path in having
                ]
                yield _finding(bad, sight.called(), seen_there, tuple(names(having)))


def _finding(bad: BadModel, what: str, evidence: list[Evidence], hosts: tuple[str, ...]) -> Finding:
    return known_bad_model.finding(
        f"{what}: {bad.why}",
        hosts=hosts,
        evidence=[*evidence, Evidence(text=bad.source, source="dsdoctor's table of models")],
        fix=[Fix(bad.instead)],
    )
