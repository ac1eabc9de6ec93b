"""DeepSpeed configs: what is refused, with what words, and the lines of keys."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.jobs.dsconfig import MAX_DEPTH, get, line_of, parse_config
from dsdoctor.yamlfile import FileError

CONFIG = """{
  "fp16": {
    "enabled": "auto",
    "loss_scale": 0
  },
  "optimizer": {"type": "AdamW",
                "params": {"betas": [0.9,
                                     0.999]}},
  "steps{": 1e-3
}
"""


def test_values_and_lines() -> None:
    config = parse_config(CONFIG, "ds.json")
    assert get(config, "fp16.enabled") == "auto"
    assert get(config, "optimizer.params.betas") == [0.9, 0.999]
    assert get(config, "optimizer.params.lr") is None
    assert get(config, "fp16.enabled.deeper") is None
    assert [line_of(config, key) for key in ("fp16", "fp16.enabled", "fp16.loss_scale")] == [2, 3, 4]
    assert [line_of(config, key) for key in ("optimizer.type", "optimizer.params.betas")] == [6, 7]
    assert line_of(config, "steps{") == 9
    assert line_of(config, "fp16.gone") == 2, "the nearest parent stands for a key that is not there"
    assert line_of(config, "bf16.enabled") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,}', "ds.json:1: column 8: a comma before a closing bracket is one too many"),
        ('{"a": [1,\n]}', "ds.json:1: column 9: a comma before a closing bracket is one too many"),
        ('{"a": 1, // why\n"b": 2}', "ds.json:1: column 10: '// why': comments are not JSON: take it out"),
        ("# a\n{}", "ds.json:1: column 1: '# a': comments are not JSON: take it out"),
        ("{'a': 1}", "ds.json:1: column 2: \"'a': 1}\": JSON writes text in double quotes"),
        ('{"a": True}', "ds.json:1: column 7: 'True}': JSON writes true and false in lower case"),
        ('{"a": None}', "ds.json:1: column 7: 'None}': JSON writes null, not None"),
        ('{"a": .5}', "ds.json:1: column 7: '.5}': a JSON number begins with a digit or with -"),
        ('{"a": 1\n "b": 2}', "ds.json:2: column 2: a comma is missing before '\"b\": 2}'"),
        ('{"a": {"b": 1}', "ds.json:1: column 15: the file ends in the middle; a closing bracket is missing"),
        ('{"a": 1}}', "ds.json:1: column 9: '}' stands after the end of the object"),
        ("", "ds.json:1: the file is empty; a DeepSpeed config is a JSON object {…}"),
        ('\ufeff{"a": 1}', "ds.json:1: the file begins with a byte-order mark"),
        ("[1]", "ds.json: a DeepSpeed config is a JSON object {…}, found a list"),
        ('"x"', "ds.json: a DeepSpeed config is a JSON object {…}, found a text"),
        ('{"a": 1,\n "b": {"c": 1,\n "c": 2}}', "ds.json:3: the key b.c is given twice, first in line 2; keep one"),
        ('{"a\\u0062": 1, "ab": 2}', "ds.json:1: the key ab is given twice"),
        ('{"x":' * 40 + "1" + "}" * 40, f"ds.json:1: nested more than {MAX_DEPTH} deep"),
        ("[" * 100_000, "ds.json: nested more than 32 deep"),
        ("9" * 5000, "ds.json: not a DeepSpeed config: "),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(FileError) as caught:
        parse_config(text, "ds.json")
    shown = str(caught.value)
    assert shown.startswith(message)
    assert len(shown) < 300


def test_the_same_key_in_two_objects_is_no_duplicate() -> None:
    assert parse_config('{"a": {"x": 1}, "b": [{"x": 1}, {"x": 2}], "x": 3}', "ds.json").value["x"] == 3


KEYS = st.text(max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from([None, 2]), st.booleans())
def test_whatever_json_writes_is_read_and_every_key_has_its_line(value: dict, indent: int | None, plain: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    config = parse_config(text, "ds.json")
    assert config.value == value
    lines = text.split("\n")
    for key in value:
        if key and "." not in key:
            line = line_of(config, key)
            assert line is not None
            assert json.dumps(key, ensure_ascii=plain) in lines[line - 1]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_config(text, "ds.json")
    except FileError as error:
        assert error.path == "ds.json"
