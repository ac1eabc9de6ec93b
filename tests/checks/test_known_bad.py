"""The table of releases that do not go together: it can be read, its fixes lead out of it, its sources are named."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from dsdoctor.checks.tables import BadSet, known_bad

ROWS = [pytest.param(row, id=row.name) for row in known_bad()]


def test_the_names_are_unique() -> None:
    names = [row.name for row in known_bad()]
    assert len(set(names)) == len(names) >= 20


@pytest.mark.parametrize("row", ROWS)
def test_a_row_can_be_read(row: BadSet) -> None:
    for name, wanted in row.packages.items():
        assert canonicalize_name(name) == name, "as the packages of a host are called"
        assert str(SpecifierSet(wanted)), "a package in any version is no set"
    assert row.sources and all(source.startswith("https://") for source in row.sources)
    assert row.fixes
    assert row.effect and not row.effect.endswith(".")
    assert row.jobless is None or row.job is not None, "jobless is for rows that ask for a job"


@pytest.mark.parametrize("row", ROWS)
def test_each_fix_leads_out_of_the_set(row: BadSet) -> None:
    for fix in row.fixes:
        assert any(_leaves(Requirement(text), row) for text in fix), fix


def _leaves(wanted: Requirement, row: BadSet) -> bool:
    """Whether no release that a fix allows is in the range of the row: tried at the ends of both."""
    if wanted.name not in row.packages:
        return False
    bad = SpecifierSet(row.packages[wanted.name])
    ends = [Version(spec.version) for spec in (*wanted.specifier, *bad)]
    around = [*ends, *(Version(f"{end}.post1") for end in ends), Version("0.0.1"), Version("9999")]
    allowed = [version for version in around if wanted.specifier.contains(version, prereleases=True)]
    return bool(allowed) and not any(bad.contains(version, prereleases=True) for version in allowed)
