"""The knowledge base: what a rule is, and how the rules are read.

One YAML file a rule in `dsdoctor/rules/`, named after its root cause. A rule says which lines give it away (a literal
keyword first, so that gigabytes can be searched for all rules at once), what it means, and how to mend it; its own
samples are checked by :func:`violations`.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from dsdoctor.report.model import Confidence, Fix

if TYPE_CHECKING:
    from dsdoctor.yamlfile import FileError

Role = Literal["cause", "symptom", "benign"]
Where = Literal["anywhere", "host", "stream"]

FOLDER = Path(__file__).resolve().parent.parent / "rules"
COMPILED = "compiled.json"
SCRIPT_EXCEPTION = "training-script-exception"  # the one rule without patterns: exceptions that no other rule knows

_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Another line that must, or must not, be there. Distances count lines of the same source."""

    keyword: str = ""
    keywords: tuple[str, ...] = ()
    pattern: str | None = None
    within: int | None = None  # lines between the two; None for any distance within the attempt
    where: Where = "anywhere"  # the same host, or the same host and rank

    @property
    def words(self) -> tuple[str, ...]:
        """The literal keywords, one of which a matching line holds."""
        return ((self.keyword,) if self.keyword else ()) + self.keywords


class Pattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One way in which a rule shows. The line must hold a keyword, match `pattern`, and not match `but_not`."""

    keyword: str = ""
    keywords: tuple[str, ...] = ()
    pattern: str | None = None
    but_not: str | None = None
    followed_by: tuple[Condition, ...] = ()  # all of them, on the same line or later
    preceded_by: tuple[Condition, ...] = ()  # all of them, on the same line or earlier
    near: tuple[Condition, ...] = ()  # all of them, earlier or later
    unless: tuple[Condition, ...] = ()  # none of them, earlier or later
    first_collective: bool = False  # only when the group `seq` of the pattern is 0 or 1
    latest: bool = False  # only the latest match of a stream counts, and not when its group `done` is set
    at_least: int = 1  # matching lines in one stream
    at_end: int | None = None  # only within this many lines of the end of the source
    unless_progress: bool = False  # not when training steps are printed after it
    without_traceback: bool = False  # not when the rank of the line has raised an exception
    weak: bool = False  # gives way to every cause that is not weak, wherever it stands
    confidence: Confidence = "certain"
    message: str | None = None  # instead of the rule's

    @property
    def words(self) -> tuple[str, ...]:
        """The literal keywords, one of which a matching line holds."""
        return ((self.keyword,) if self.keyword else ()) + self.keywords


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Why a stage that failed of this may go well when it is only started again; wanted with `launch --retries` alone.

    With `when: host-lost` only if a host was lost on the way, so that its return is what changes.
    """

    because: str
    when: Literal["always", "host-lost"] = "always"
    new_port: bool = False  # with another master port


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A log that a rule matches, where more than the text is worth saying."""

    log: str
    line: str | None = None  # the line that is the evidence
    host: str | None = None
    rank: int | None = None


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A root cause, a symptom of one elsewhere, or something harmless."""

    role: Role
    patterns: tuple[Pattern, ...]
    message: str  # one sentence; {group} takes a named group of the pattern
    why: str
    fixes: tuple[Fix, ...] = ()
    references: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()  # checks that would have told beforehand
    explains: tuple[str, ...] = ()  # rules whose lines are an effect of this one
    silent: bool = False  # a fault that a training can go through to its end with
    stands_alone: bool = False  # a symptom that is the verdict when nothing else is there
    retry: Retry | None = None  # without it a failure of this is never tried again
    neighbours: tuple[str, ...] = ()  # other right answers to this rule's own samples
    matches: tuple[str | Sample, ...] = ()
    ignores: tuple[str, ...] = ()
    name: str = ""  # from the file's name


class Matcher:
    """One pattern or condition, ready to be tried on a line that holds one of its keywords."""

    def __init__(self, words: tuple[str, ...], pattern: str | None, but_not: str | None = None) -> None:
        self.words = words
        self._pattern = pattern
        self._but_not = but_not

    @cached_property
    def _expression(self) -> re.Pattern[str] | None:
        # Compiled when the keyword is first seen: most rules are never tried on a given log.
        return re.compile(self._pattern) if self._pattern else None

    @cached_property
    def _veto(self) -> re.Pattern[str] | None:
        return re.compile(self._but_not) if self._but_not else None

    def groups(self, body: str, text: str) -> dict[str, str] | None:
        """The named groups of a match, None when the line does not match."""
        if self._veto and self._veto.search(text):
            return None
        if not self._expression:
            return {}
        found = self._expression.search(body) or (self._expression.search(text) if body != text else None)
        if not found:
            return None
        return {name: value for name, value in found.groupdict().items() if value is not None}


class RuleSet:
    """All rules, with every pattern and condition numbered for the scanner."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = {rule.name: rule for rule in rules}
        self.matchers: list[Matcher] = []
        self.patterns: dict[int, tuple[Rule, Pattern]] = {}
        self._conditions: dict[Condition, int] = {}
        for rule in rules:
            for pattern in rule.patterns:
                self.patterns[self._add(pattern.words, pattern.pattern, pattern.but_not)] = (rule, pattern)
                for condition in (*pattern.followed_by, *pattern.preceded_by, *pattern.near, *pattern.unless):
                    key = msgspec.structs.replace(condition, within=None, where="anywhere")
                    if key not in self._conditions:
                        self._conditions[key] = self._add(condition.words, condition.pattern)

    def _add(self, words: tuple[str, ...], pattern: str | None, but_not: str | None = None) -> int:
        self.matchers.append(Matcher(words, pattern, but_not))
        return len(self.matchers) - 1

    def number(self, condition: Condition) -> int:
        """The number of the matcher of a condition."""
        return self._conditions[msgspec.structs.replace(condition, within=None, where="anywhere")]

    def __getitem__(self, name: str) -> Rule:
        return self.rules[name]


def _refuse(path: Path | str, message: str) -> FileError:
    # The YAML reader is imported with it, which takes 30 ms that `diagnose` can save.
    from dsdoctor.yamlfile import FileError

    return FileError(path, message)


def load_rules(directory: Path | str | None = None) -> RuleSet:
    """The rules that come with dsdoctor, and those of a directory of the user's, which win over ours of the same name.

    Raises:
        FileError: a rule that cannot be read, with the file, the key and the line; a directory without rules.
    """
    rules = {rule.name: rule for rule in _own_rules()}
    if directory is not None:
        files = _rule_files(Path(directory))
        if not files:
            raise _refuse(directory, "no rule in it: wanted files named CAUSE.yaml")
        rules.update((rule.name, rule) for rule in (parse_rule(path) for path in files))
    return RuleSet(tuple(rules.values()))


def _own_rules() -> tuple[Rule, ...]:
    """The rules of the package: from the compiled form when it was made from these very files, else from the files."""
    files = _rule_files(FOLDER)
    texts = [path.read_bytes() for path in files]
    digest = fingerprint(files, texts)
    try:
        compiled = msgspec.json.decode((FOLDER / COMPILED).read_bytes(), type=Compiled)
    except (OSError, msgspec.DecodeError):
        compiled = None
    if compiled and compiled.digest == digest:
        return compiled.rules
    return tuple(parse_rule(path) for path in files)


class Compiled(msgspec.Struct, frozen=True):
    """All rules without their samples, as one JSON file: the YAML files take some 25 times as long to parse."""

    digest: str  # of the YAML files it was made from
    rules: tuple[Rule, ...]


def compile_rules() -> bytes:
    """The compiled form of the package's rules, for the build of a wheel to write (hatch_build.py)."""
    files = _rule_files(FOLDER)
    rules = tuple(msgspec.structs.replace(parse_rule(path), matches=(), ignores=(), neighbours=()) for path in files)
    digest = fingerprint(files, [path.read_bytes() for path in files])
    return msgspec.json.format(msgspec.json.encode(Compiled(digest, rules)), indent=1) + b"\n"


def fingerprint(files: list[Path], texts: list[bytes]) -> str:
    """A digest of the rule files, and of the shape of a rule, so that an older compiled form is never taken."""
    digest = hashlib.sha256(",".join((*Rule.__struct_fields__, *Pattern.__struct_fields__)).encode())
    for path, text in zip(files, texts, strict=True):
        digest.update(f"\0{path.name}\0".encode())
        digest.update(text)
    return digest.hexdigest()


def _rule_files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.yaml"))
    except OSError as error:
        raise _refuse(folder, error.strerror or str(error)) from None


def parse_rule(path: Path) -> Rule:
    """The rule of a YAML file. Raises FileError with key and line."""
    from dsdoctor.yamlfile import convert, parse, read_text

    text = read_text(path)
    value = parse(text, path)
    if not isinstance(value, dict):
        raise _refuse(path, "wanted a mapping with role, patterns, message and why")
    if "name" in value:
        raise _refuse(path, "name: a rule is named by its file")
    for fix in value.get("fixes") or ():
        strange = set(fix) - set(Fix.__struct_fields__) if isinstance(fix, dict) else set()
        if strange:
            raise _refuse(path, f"unknown key fixes.{strange.pop()}; known keys: {', '.join(Fix.__struct_fields__)}")
    rule = msgspec.structs.replace(convert(value, Rule, path, text), name=path.stem)
    problem = _problem(rule)
    if problem:
        raise _refuse(path, problem)
    return rule


def _problem(rule: Rule) -> str | None:
    """What makes a rule unusable, or None."""
    if not _SLUG.fullmatch(rule.name):
        return f"the file's name {rule.name!r} is not a slug: lower case words joined by dashes"
    if not rule.patterns and rule.name != SCRIPT_EXCEPTION:
        return "patterns: at least one is wanted"
    groups: set[str] = set()
    for pattern in rule.patterns:
        conditions = (*pattern.followed_by, *pattern.preceded_by, *pattern.near, *pattern.unless)
        parts: tuple[Pattern | Condition, ...] = (pattern, *conditions)
        for part in parts:
            if not part.words or any(len(word.encode()) > 256 for word in part.words):
                return "a keyword is wanted: literal text of at most 256 bytes that every matching line holds"
            for expression in (part.pattern, part.but_not if isinstance(part, Pattern) else None):
                try:
                    compiled = re.compile(expression or "")
                except re.error as error:
                    return f"pattern {expression!r}: {error}"
                groups.update(compiled.groupindex)
    texts = [rule.message, *(p.message or "" for p in rule.patterns)]
    texts += [text for fix in rule.fixes for text in (fix.title, *fix.commands)]
    unknown = {name for text in texts for name in _PLACEHOLDER.findall(text)} - groups
    return f"{{{unknown.pop()}}} is not a named group of a pattern" if unknown else None


def fill(text: str, groups: dict[str, str], quote: bool = False) -> str:
    """Put the named groups into a text; what was not found stands as its name in capitals.

    With `quote` the values are quoted for a shell: they come from a log, and the result is pasted.
    """
    import shlex

    def value(match: re.Match[str]) -> str:
        found = groups.get(match[1])
        if found is None:
            return match[1].upper()
        found = found[:200]
        return shlex.quote(found) if quote else found

    return _PLACEHOLDER.sub(value, text)
