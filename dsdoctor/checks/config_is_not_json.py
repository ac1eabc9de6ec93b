"""A DeepSpeed config with comments or commas too many, which transformers cannot read."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import listed
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_SHOWN = 4


@check(severity=Severity.ERROR, since="0.1")
def config_is_not_json(context: JobContext) -> Iterator[Finding]:
    """The DeepSpeed config holds comments, or commas before closing brackets.

    ## Why it matters
    DeepSpeed reads its config as Hjson, which allows both. transformers and accelerate read the same file first, as
    JSON: "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes", on every rank. The file
    works in one program and not in the other.

    ## How to fix it
    Take them out.

    ## Source
    deepspeed/runtime/config.py (hjson.load); accelerate/utils/deepspeed.py, HfDeepSpeedConfig (json.load).
    """
    config = context.deepspeed
    if config is None or not config.loose:
        return
    trainer = any(context.uses_trainer(stage) for stage in context.stages) or context.job.accelerate is not None
    whats = " and ".join(dict.fromkeys(place.what for place in config.loose))
    where = listed([place.line for place in config.loose])
    reader = "transformers and accelerate stop there" if trainer else "DeepSpeed reads it, transformers would not"
    yield config_is_not_json.finding(
        f"{config.path} holds {whats} ({where}) and so is no JSON: {reader}",
        severity=Severity.ERROR if trainer else Severity.INFO,
        evidence=[
            Evidence(text=f"{place.what}: {place.text}", source=config.path, line=place.line)
            for place in config.loose[:_SHOWN]
        ],
        fix=[Fix(f"Take them out of {config.path}")],
    )
