"""Secrets in arguments: refused by their shape, warned of by their name."""

from __future__ import annotations

import pytest

from dsdoctor.plan.exposed import exposed_secrets
from dsdoctor.plan.model import PlanError
from tests.plan.clusters import one_host
from tests.plan.test_plan import JOB, job, made

TOKEN = "hf_" + "a1B2" * 8


def test_a_token_among_the_arguments_is_refused_with_the_right_way() -> None:
    with pytest.raises(PlanError) as error:
        made(one_host(), JOB.replace("flag: true", f"hub: {TOKEN}"))
    assert "stage first: the value of hub looks like a secret" in str(error.value)
    assert "--env HF_TOKEN takes it from the environment here" in str(error.value)
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize("name", ["hub_token", "api-key", "wandb.api_key", "password"])
def test_an_argument_with_the_name_of_a_secret_is_warned_of(name: str) -> None:
    planned = made(one_host(), JOB.replace("flag: true", f'"{name}": not-so-secret'))
    (warning,) = planned.warnings
    assert warning.startswith(f"{name} is an argument of the program, and by its name a secret")


@pytest.mark.parametrize(
    "setting", ["pad_token: '<|endoftext|>'", "max_tokens: 4096", "use_auth_token: true", "sort_key: length_of_it"]
)
def test_words_about_letters_and_tables_are_no_secrets(setting: str) -> None:
    assert made(one_host(), JOB.replace("flag: true", setting)).warnings == ()


def test_a_token_by_set_is_refused_as_well() -> None:
    resolved = job(JOB, settings=(f"first.key={TOKEN}",))
    with pytest.raises(PlanError, match="stage first: the value of key"):
        list(exposed_secrets(resolved))
