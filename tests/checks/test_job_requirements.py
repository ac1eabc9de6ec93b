"""What a job wants installed: its own lines, its file, the file beside its code; and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.jobs.load import load_job
from dsdoctor.jobs.requirements import parse_requirements
from dsdoctor.yamlfile import FileError

JOB = "name: x\nmodule: train\nstages: [{name: a}]\n"


def nothing(name: str, source: str) -> tuple[str, str]:
    raise FileError(name, "no such file")


def texts(content: str, *, declared: bool = True) -> list[tuple[str, int | None]]:
    return [(one.text, one.line) for one in parse_requirements(content, "r.txt", nothing, declared=declared)]


def test_lines_as_pip_has_them() -> None:
    content = """# versions that fit together
numpy<2   # the old ABI
transformers ==4.28.0 ; python_version >= "3.8"

--extra-index-url https://example.com/simple
-c constraints.txt
-e .
./local
git+https://example.com/x.git
https://example.com/y-1.0-py3-none-any.whl
fsspec[http]==2023.6.0 \\
    --hash=sha256:abc
torch==2.1.2 --hash=sha256:abc
apex @ https://example.com/apex.zip
"""
    assert texts(content) == [
        ("numpy<2", 2),
        ('transformers ==4.28.0 ; python_version >= "3.8"', 3),
        ("fsspec[http]==2023.6.0", 11),
        ("torch==2.1.2", 13),
        ("apex @ https://example.com/apex.zip", 14),
    ]


def test_what_is_no_requirement_is_refused_where_it_was_declared() -> None:
    with pytest.raises(FileError, match=r"r\.txt:2: requirements: 'numpy=<2' is none that pip would take"):
        texts("torch\nnumpy=<2\n")
    assert texts("torch\nnumpy=<2\n", declared=False) == [("torch", 1)]


@given(st.text(max_size=200))
def test_any_text_is_read_where_nobody_declared_it(content: str) -> None:
    try:
        texts(content, declared=False)
    except FileError as error:
        assert error.message == "no such file"


def test_the_job_s_own_lines_and_python(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB + 'requirements: ["numpy<2", datasets==2.13.1]\nrequires_python: ">=3.9"\n')
    (tmp_path / "requirements.txt").write_text("torch\n")
    job = load_job(str(file))
    assert [(one.text, one.source, one.declared) for one in job.requirements] == [
        ("numpy<2", str(file), True),
        ("datasets==2.13.1", str(file), True),
    ]
    assert job.job.requires_python == ">=3.9"


@pytest.mark.parametrize("line", ['requirements: ["numpy=<2"]', "requires_python: 3.9 or so", "requirements: [1]"])
def test_a_job_that_asks_for_what_is_none(tmp_path: Path, line: str) -> None:
    (tmp_path / "job.yaml").write_text(JOB + line + "\n")
    with pytest.raises(FileError):
        load_job(str(tmp_path / "job.yaml"))


def test_a_file_and_the_files_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB + "requirements: pins/all.txt\n")
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins/all.txt").write_text("-r base.txt\n--requirement=base.txt\npeft\n")
    (tmp_path / "pins/base.txt").write_text("torch\n")
    found = load_job(str(tmp_path / "job.yaml")).requirements
    assert [(one.text, Path(one.source).name) for one in found] == [
        ("torch", "base.txt"),
        ("torch", "base.txt"),
        ("peft", "all.txt"),
    ]
    (tmp_path / "pins/base.txt").write_text("-r all.txt\n")
    with pytest.raises(FileError, match="name each other more than 8 deep"):
        load_job(str(tmp_path / "job.yaml"))
    (tmp_path / "pins/all.txt").unlink()
    with pytest.raises(FileError, match="No such file"):
        load_job(str(tmp_path / "job.yaml"))


def test_the_file_beside_the_code_is_taken_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB + "sync: {code: src}\n")
    assert load_job(str(tmp_path / "job.yaml")).requirements == ()
    (tmp_path / "src").mkdir()
    (tmp_path / "src/requirements.txt").write_text("torch\nno requirement at all\n")
    found = load_job(str(tmp_path / "job.yaml")).requirements
    assert [(one.text, one.line, one.declared) for one in found] == [("torch", 1, False)]
    for content in (b"\xff\xfe\x00", b"-r requirements.txt\n"):
        (tmp_path / "src/requirements.txt").write_bytes(content)
        assert load_job(str(tmp_path / "job.yaml")).requirements == ()
