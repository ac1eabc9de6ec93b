"""What the libraries literally print, release by release: each message must be taken for its root cause."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dsdoctor.logs.diagnose import diagnose
from dsdoctor.logs.rules import RuleSet, load_rules

MESSAGES: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parent / "messages.yaml").read_text(encoding="utf-8")
)
RULES: RuleSet = load_rules()
EACH = [
    pytest.param(cause, message["log"], id=f"{cause}-{number}: {message['of']}")
    for cause, messages in MESSAGES.items()
    for number, message in enumerate(messages)
]


@pytest.mark.parametrize(("cause", "log"), EACH)
def test_a_message_is_taken_for_its_cause(cause: str, log: str) -> None:
    verdict = diagnose([("train.log", [log.encode()])], RULES).verdict
    assert verdict is not None
    assert verdict.cause == cause


@pytest.mark.parametrize(("cause", "log"), EACH)
def test_the_rank_before_a_message_does_not_change_its_meaning(cause: str, log: str) -> None:
    """The same from rank 11 of a host, as dsdoctor, pdsh and torchrun would print it."""
    if log.startswith("[") or any(line.startswith(("[", "node", "srun", "slurmstepd")) for line in log.splitlines()):
        return  # it says itself who printed it
    prefixed = "".join(f"gpu-b17:11| {line}\n" for line in log.splitlines())
    verdict = diagnose([("train.log", [prefixed.encode()])], RULES).verdict
    assert verdict is not None
    assert verdict.cause == cause
    if verdict.line is not None:
        assert verdict.host is not None


def test_every_message_says_whose_it_is() -> None:
    causes = (Path(__file__).parent / "taxonomy.txt").read_text().split()
    assert set(MESSAGES) <= {*causes, "none", "unknown"}
    for messages in MESSAGES.values():
        assert all(set(message) == {"of", "log"} and message["of"] for message in messages)
