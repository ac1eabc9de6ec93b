"""The knowledge base: every rule against its own samples, against those of all others, and as text for people."""

import re
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsdoctor.checks.engine import discover
from dsdoctor.logs.diagnose import diagnose
from dsdoctor.logs.rules import (
    COMPILED,
    FOLDER,
    SCRIPT_EXCEPTION,
    Compiled,
    Condition,
    Pattern,
    Rule,
    RuleSet,
    Sample,
    compile_rules,
    fill,
    load_rules,
    parse_rule,
)
from dsdoctor.report.model import Report, Severity
from dsdoctor.yamlfile import FileError

if sys.version_info >= (3, 11):
    from re import _constants as sre_constants
    from re import _parser as sre_parse
else:
    import sre_constants
    import sre_parse

RULES = {path.stem: parse_rule(path) for path in sorted(FOLDER.glob("*.yaml"))}
ALL = RuleSet(tuple(RULES.values()))

CHECKS = set(discover())  # by name

# The root causes that `diagnose` may answer with (beside "none" and "unknown"): names are never changed.
TAXONOMY = (Path(__file__).parent / "logs" / "taxonomy.txt").read_text().split()


def said(text: str) -> Report:
    return diagnose([("log", [text.encode()])], ALL)


def samples(rule: Rule) -> list[Sample]:
    return [each if isinstance(each, Sample) else Sample(each) for each in rule.matches]


EVERY_SAMPLE = [
    pytest.param(rule, sample, id=f"{name}-{number}")
    for name, rule in RULES.items()
    for number, sample in enumerate(samples(rule))
]


@pytest.mark.parametrize(("rule", "sample"), EVERY_SAMPLE)
def test_a_rule_knows_its_own_samples(rule: Rule, sample: Sample) -> None:
    report = said(sample.log)
    verdict = report.verdict
    if rule.role == "benign":
        assert verdict.cause == "none"
        assert any(note.startswith("Harmless: ") for note in report.notes)
        return
    if rule.role == "symptom" and not rule.stands_alone:
        assert verdict.cause == "unknown"
        assert rule.name in {finding.name for finding in report.findings}
        return
    assert verdict.cause == rule.name
    finding = next(finding for finding in report.findings if finding.name == rule.name)
    assert finding.severity is Severity.ERROR
    assert verdict.text == finding.evidence[0].text
    if sample.line is not None:
        assert verdict.text == sample.line
    if sample.host is not None:
        assert verdict.host == sample.host
    if sample.rank is not None:
        assert verdict.rank == sample.rank


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        pytest.param(rule, text, id=f"{name}-{number}")
        for name, rule in RULES.items()
        for number, text in enumerate(rule.ignores)
    ],
)
def test_a_rule_leaves_its_neighbours_alone(rule: Rule, text: str) -> None:
    report = said(text)
    assert rule.name not in {finding.name for finding in report.findings}
    if rule.role == "benign":
        assert not any(rule.message[:30] in note for note in report.notes)


def test_no_sample_gives_the_verdict_of_another_rule() -> None:
    """The matrix of all rules against all samples: each answer is the rule itself or a neighbour that it names."""
    wrong = []
    for rule in RULES.values():
        allowed = {rule.name, *rule.neighbours}
        if rule.role == "benign":
            allowed.add("none")
        if rule.role == "symptom" and not rule.stands_alone:
            allowed.add("unknown")
        for sample in samples(rule):
            report = said(sample.log)
            causes = {each.name for each in report.findings if each.severity is Severity.ERROR}
            strangers = {report.verdict.cause, *causes} - allowed - set(rule.explains)
            if strangers:
                wrong.append((rule.name, strangers, sample.log[:100]))
    assert wrong == []


def test_every_root_cause_has_a_rule() -> None:
    answers = {name for name, rule in RULES.items() if rule.role == "cause" or rule.stands_alone}
    assert set(TAXONOMY) - answers == set()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_rule_is_complete(rule: Rule) -> None:
    logs = [sample.log for sample in samples(rule)]
    assert len(logs) == len(set(logs)) >= 2, "samples from two versions, ranks or launchers at least"
    assert rule.ignores, "a neighbour that it must leave alone"
    assert not set(logs) & set(rule.ignores)
    assert set(rule.checks) <= CHECKS, "checks names one that there is not"
    assert rule.message[0].islower() or rule.message.split()[0].strip("'s") not in {"A", "The", "An", "This"}
    assert not rule.message.endswith(".")
    assert "!" not in rule.message + rule.why
    assert rule.why.endswith(".")
    assert set(rule.explains) <= set(RULES), "explains names a rule that is not there"
    assert set(rule.neighbours) <= {*RULES, "none", "unknown"}
    if rule.role == "cause":
        assert rule.fixes
    for fix in rule.fixes:
        assert fix.title[0].isupper()
        assert not fix.title.endswith((".", ":"))
        assert not fix.safe, "what a log says must never be run unasked"


# What a second attempt cannot mend: it would only take the hosts for as long again.
NEVER_AGAIN = ("oom", "missing", "unsupported", "mismatch", "config", "invalid", "exception", "nan", "zero", "too-old")


@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.retry], ids=lambda rule: rule.name)
def test_only_what_may_go_well_by_itself_is_tried_again(rule: Rule) -> None:
    assert rule.retry is not None
    assert rule.role == "cause" or rule.stands_alone, "an attempt is judged by its verdict"
    assert not any(word in rule.name for word in NEVER_AGAIN)
    assert rule.retry.because
    assert not rule.retry.because.endswith(".")
    assert rule.retry.because[0].islower()


def test_what_is_tried_again_is_this_and_nothing_else() -> None:
    """A new name here is a decision: the failure must be able to pass with nothing changed but time (or the port)."""
    always = {rule.name for rule in RULES.values() if rule.retry and rule.retry.when == "always"}
    after_loss = {rule.name for rule in RULES.values() if rule.retry and rule.retry.when == "host-lost"}
    assert always == {
        *("port-in-use", "rank0-died-connection-reset", "nccl-ib-completion-error"),
        *("hf-hub-unreachable", "torch-extension-build-race"),
    }
    assert after_loss == {"elastic-rendezvous-lost", "host-lost", "master-unreachable", "peer-unreachable-firewall"}
    assert [rule.name for rule in RULES.values() if rule.retry and rule.retry.new_port] == ["port-in-use"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_command_is_cut_at_a_comma(path: Path) -> None:
    """In a list in brackets YAML cuts plain text at every comma: `mount -o remount,size=1G` must be quoted there."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r" *commands: \[", line):
            plain = re.sub(r"'(?:[^']|'')*'|\"(?:[^\"\\\\]|\\\\.)*\"", "", line)
            assert not re.search(r",\S", plain), line


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_mend_takes_away_nothing_that_is_not_ours(rule: Rule) -> None:
    """A fix is pasted: what deletes goes by a cache's own name, and looks first whether it is in use."""
    for fix in rule.fixes:
        deleting = [command for command in fix.commands if re.search(r"\brm\b|-delete\b|\bmkfs|\bdd\b", command)]
        for command in deleting:
            assert "torch_extensions" in command and "-name" in command, command
            assert re.search(r"build|ninja", fix.title + "".join(fix.commands)), command
        for command in fix.commands:
            assert not re.search(r"\bpkill\b|\bkillall\b|StrictHostKeyChecking=no|\b777\b", command), command


def expressions(rule: Rule) -> list[str]:
    found: list[str] = []
    for pattern in rule.patterns:
        parts: list[Pattern | Condition] = [
            pattern,
            *pattern.followed_by,
            *pattern.preceded_by,
            *pattern.near,
            *pattern.unless,
        ]
        found += [part.pattern for part in parts if part.pattern]
        found += [pattern.but_not] if pattern.but_not else []
    return found


def unbounded(parsed: Any) -> int:
    """How deep repeats without a small bound are nested: two make a search exponential on hostile lines."""
    depth = 0
    for code, argument in parsed:
        if code in (sre_constants.MAX_REPEAT, sre_constants.MIN_REPEAT):
            _, high, inner = argument
            depth = max(depth, unbounded(inner) + (high > 1000))
        elif code is sre_constants.SUBPATTERN:
            depth = max(depth, unbounded(argument[-1]))
        elif code is sre_constants.BRANCH:
            depth = max([depth, *(unbounded(branch) for branch in argument[1])])
        elif code in (sre_constants.ASSERT, sre_constants.ASSERT_NOT):
            depth = max(depth, unbounded(argument[1]))
    return depth


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_no_expression_can_take_for_ever(rule: Rule) -> None:
    for expression in expressions(rule):
        assert unbounded(sre_parse.parse(expression)) <= 1, f"nested repeats: {expression}"
        assert not re.match(r"(?:\(\?[imsx]+\))?(?:\.\*|\.\+|\[\^?.\]\*|\\s\*\S)", expression), (
            f"begins with a repeat that is tried at every character: {expression}"
        )


def test_a_line_made_to_hurt_is_matched_quickly() -> None:
    words = [word for matcher in ALL.matchers for word in matcher.words]
    hostile = " ".join(words)[:4000]
    lines = "\n".join(f"{word}{filler * 2000}" for word in words for filler in ("a ", "/.", ": ", "'x'", "1"))
    started = time.perf_counter()
    said(hostile + "\n" + lines)
    assert time.perf_counter() - started < 60  # thousands of lines of 4,000 characters; one that explodes takes hours


def test_the_compiled_form_says_what_the_files_say() -> None:
    compiled = msgspec.json.decode(compile_rules(), type=Compiled)
    bare = [msgspec.structs.replace(rule, matches=(), ignores=(), neighbours=()) for rule in RULES.values()]
    assert sorted(compiled.rules, key=lambda rule: rule.name) == sorted(bare, key=lambda rule: rule.name)


def test_the_rules_of_the_package_are_loaded() -> None:
    loaded = load_rules()
    assert set(loaded.rules) == set(RULES)
    assert loaded[SCRIPT_EXCEPTION].why == RULES[SCRIPT_EXCEPTION].why


def test_a_stale_compiled_form_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in FOLDER.glob("cuda-*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / COMPILED).write_bytes(compile_rules())
    edited = tmp_path / "cuda-oom.yaml"
    edited.write_text(edited.read_text().replace("the memory of a GPU is full", "no room"))
    monkeypatch.setattr("dsdoctor.logs.rules.FOLDER", tmp_path)
    assert load_rules()["cuda-oom"].message == "no room"


GOOD = """\
role: cause
patterns: [{keyword: license server says no, pattern: 'says no to (?P<who>\\w+)'}]
message: the licence server refused {who}
why: It counts.
fixes: [{title: Ask it, commands: ['lic status {who}']}]
matches: ['license server says no to alice']
"""


def test_rules_of_the_user_are_added_and_win(tmp_path: Path) -> None:
    (tmp_path / "license-refused.yaml").write_text(GOOD)
    (tmp_path / "cuda-oom.yaml").write_text(GOOD.replace("license server says no", "CUDA out of memory"))
    rules = load_rules(tmp_path)
    report = diagnose([("log", [b"license server says no to alice; rm -rf /\n"])], rules)
    assert report.verdict.cause == "license-refused"
    assert report.findings[0].message == "the licence server refused alice"
    assert rules["cuda-oom"].why == "It counts."


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a", GOOD + "colour: red\n", "unknown key colour"),
        ("a", GOOD.replace("keyword", "keywrod"), "did you mean keyword?"),
        ("a", GOOD.replace("keyword: license server says no, ", ""), "a keyword is wanted"),
        ("a", GOOD.replace("{who}", "{whom}"), "{whom} is not a named group"),
        ("a", GOOD.replace(r"(?P<who>\w+)", r"(?P<who>\w+"), "missing )"),
        ("a", GOOD.replace("role: cause", "role: guess"), "role"),
        ("a", GOOD + "name: b\n", "a rule is named by its file"),
        ("A b", GOOD, "not a slug"),
        ("a", "- 1\n", "wanted a mapping"),
        ("a", GOOD.replace("patterns: [{", "patterns: []\nx: [{"), "unknown key x"),
        ("a", GOOD.replace("title: Ask it", "titel: Ask it"), "unknown key fixes.titel"),
        ("a", "role: cause\nrole: cause\n", "given twice"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    with pytest.raises(FileError, match=re.escape(message)) as refused:
        parse_rule(path)
    assert str(path) in str(refused.value)


def test_a_folder_without_rules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no rule in it"):
        load_rules(tmp_path)


def test_what_a_log_says_is_quoted_before_it_is_pasted() -> None:
    hostile = "$(rm -rf ~); echo `id`"
    assert fill("ls {path}", {"path": hostile}, quote=True) == "ls '$(rm -rf ~); echo `id`'"
    assert fill("ls {path}", {}) == "ls PATH"
    assert len(fill("{path}", {"path": "x" * 10_000})) == 200


def test_commands_with_text_from_a_log_come_out_quoted() -> None:
    report = said("OSError: $(reboot)/x is not a local folder and is not a valid model identifier listed on hf\n")
    commands = [command for finding in report.findings for fix in finding.fix for command in fix.commands]
    assert "ls -l '$(reboot)/x'" in commands
