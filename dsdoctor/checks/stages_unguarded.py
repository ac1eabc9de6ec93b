"""A stage that fails does not stop the script."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.jobs.script.model import Call
from dsdoctor.report.model import Finding, Fix, Severity


@check(severity=Severity.WARNING, since="0.1")
def stages_unguarded(context: JobContext) -> Iterator[Finding]:
    """The script starts several stages, and goes on to the next when one has failed.

    ## Why it matters
    The next stage reads what the failed one should have written: it dies with an error that hides the first (a local
    path that is not there is taken for a model on the hub), or goes on from an older checkpoint and gives results
    that look right. Hours later the log ends with the last of several errors.

    ## How to fix it
    Let the script stop at the first failure: `set -euo pipefail` at its beginning, or `&&` between the stages. A pipe
    into tee hides a failure even then, unless pipefail is set.

    ## Source
    bash(1), SHELL BUILTIN COMMANDS, set -e and set -o pipefail.
    """
    started = [call for call in calls(context) if not call.command.background and not call.command.conditional]
    for place, call in enumerate(started[:-1]):
        if call.command.checked:
            continue
        later = next((one for one in started[place + 1 :] if one.line != call.line), None)
        if later is None:
            continue
        reader = next((one for one in started[place + 1 :] if _reads(one, call)), None)
        after = reader or later
        uses = ", which reads what it writes" if reader is not None else ""
        why = (
            "its exit code is lost in the pipe"
            if call.command.piped
            else "there is neither `set -e` nor `&&` between them"
        )
        yield stages_unguarded.finding(
            f"when the stage of line {call.line} fails, the one of line {after.line} is started all the same{uses}: "
            f"{why}",
            severity=Severity.WARNING if reader is not None else Severity.INFO,
            evidence=[cited(context, call.line), cited(context, after.line)],
            fix=[Fix("Stop at the first failure: put this into the script's second line", ("set -euo pipefail",))],
        )
        return


def _reads(later: Call, earlier: Call) -> bool:
    """Whether an argument of the later call lies in a folder that the earlier one writes, as both are written."""
    words = earlier.arguments
    written = [
        words[place + 1].text.rstrip("/")
        for place, word in enumerate(words[:-1])
        if word.text in ("--output_dir", "--save_dir", "--save_name", "--out_dir")
    ]
    return any(
        word.text.startswith(f"{folder}/") or word.text == folder for word in later.arguments for folder in written
    )
