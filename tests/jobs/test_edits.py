"""Changes of single keys in the text of a config: only they change, and comments, order and form stay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.jobs.edits import Edit, as_json, edited
from dsdoctor.jobs.relaxed import parse_relaxed

TEXT = """{
  // why this is so
  "bfloat16": {"enabled": "true"},   # old
  "optimizer": {"type": "AdamW",
                "params": {"lr": 3e-5, "betas": [0.9, {"x": 1}]}},
  "scheduler": {
    "type": "WarmupLR" /* 0 */
  },
  "a{": 1,
}
"""


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (Edit(("bfloat16",), "rename", "bf16"), '"bfloat16": {', '"bf16": {'),
        (Edit(("bfloat16", "enabled"), "set", True), '"enabled": "true"', '"enabled": true'),
        (Edit(("optimizer", "params", "lr"), "set", "auto"), '"lr": 3e-5', '"lr": "auto"'),
        (Edit(("optimizer", "params", "betas"), "set", [1]), '[0.9, {"x": 1}]', "[1]"),
        (Edit(("optimizer", "params", "lr"), "remove"), '"lr": 3e-5, "betas"', '"betas"'),
        (Edit(("optimizer", "params", "betas"), "remove"), ', "betas": [0.9, {"x": 1}]', " "),
        (Edit(("bfloat16", "enabled"), "remove"), '{"enabled": "true"}', "{}"),
        (Edit(("a{",), "set", 2), '"a{": 1', '"a{": 2'),
    ],
)
def test_one_change_and_nothing_else(edit: Edit, before: str, after: str) -> None:
    assert TEXT.count(before) == 1
    assert edited(TEXT, [edit]) == TEXT.replace(before, after)


def test_a_block_goes_with_its_lines() -> None:
    changed = edited(TEXT, [Edit(("scheduler",), "remove")])
    start, end = TEXT.index('  "scheduler"'), TEXT.index('  "a{"')
    assert changed == TEXT[:start] + TEXT[end:]


def test_several_at_once() -> None:
    changed = edited(TEXT, [Edit(("bfloat16",), "rename", "bf16"), Edit(("bfloat16", "enabled"), "set", "auto")])
    assert '"bf16": {"enabled": "auto"},   # old' in changed


def test_a_key_that_is_not_there() -> None:
    with pytest.raises(LookupError):
        edited(TEXT, [Edit(("bf16",), "remove")])


def test_as_json() -> None:
    assert as_json(TEXT) == (
        '{\n  "bfloat16": {"enabled": "true"},\n  "optimizer": {"type": "AdamW",\n'
        '                "params": {"lr": 3e-5, "betas": [0.9, {"x": 1}]}},\n'
        '  "scheduler": {\n    "type": "WarmupLR"\n  },\n  "a{": 1\n}\n'
    )


def test_json_stays_as_it_is() -> None:
    text = '{"a": "// no comment, ]",\r\n\r\n "b": "#"}'
    assert as_json(text) == text


KEYS = st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=5), st.sampled_from([None, 1]), st.data())
def test_any_config_is_changed_as_its_value_would_be(
    value: dict[str, Any], indent: int | None, data: st.DataObject
) -> None:
    text = json.dumps(value, indent=indent)
    path: tuple[str, ...] = ()
    block = value
    while True:
        key = data.draw(st.sampled_from(sorted(block)))
        path = (*path, key)
        if not (isinstance(block[key], dict) and block[key] and data.draw(st.booleans())):
            break
        block = block[key]
    action = data.draw(st.sampled_from(["set", "rename", "remove"]))
    old = block.pop(key)
    if action == "set":
        block[key] = "new"
    elif action == "rename":
        if "a new name" in block:
            return
        block["a new name"] = old
    to = {"set": "new", "rename": "a new name"}.get(action)
    assert parse_relaxed(edited(text, [Edit(path, action, to)]), "ds.json").value == value
