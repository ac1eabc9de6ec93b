"""Scripts that read in or start others: followed where they are here, with limits, and never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdoctor.jobs.load_any import load_any
from dsdoctor.jobs.script.model import Script
from dsdoctor.jobs.script.read import read_script
from tests.jobs.reading import judged


def read(files: dict[str, str]) -> Script:
    """The script job.sh among files by name."""

    def open_script(name: str, beside: bool) -> tuple[str, str] | None:
        wanted = name.removeprefix("./")
        return (files[wanted], wanted) if wanted in files else None

    return read_script(files["job.sh"], "job.sh", open_script)


def words(script: Script) -> list[list[str]]:
    return [[word.text for word in call.arguments] for call in script.calls]


def test_what_is_read_in_sets_variables_of_the_line_that_reads_it_in() -> None:
    script = read(
        {
            "job.sh": "lr=1\nsource env.sh\npython t.py --model $MODEL --lr $lr --out $OUT\n",
            "env.sh": "# ours\n\nexport MODEL=/models/t5\nlr=1e-4\nOUT=$1\n",
        }
    )
    (call,) = script.calls
    assert words(script) == [["--model", "/models/t5", "--lr", "1e-4", "--out", "${1}"]]
    assert call.command.variables["MODEL"].line == 2
    assert call.command.shell_variables["lr"].line == 2
    assert (script.sourced, script.notes) == ((), ())


def test_what_is_started_has_its_arguments_and_what_is_exported() -> None:
    script = read(
        {
            "job.sh": "export A=1\nB=2\nfor task in x y; do\n  nohup bash scripts/one.sh $task 8 > $task.log &\ndone\n",
            "scripts/one.sh": "set -e\ncd sub\ndeepspeed t.py --task $1 --r $2 --a $A --b $B\nA=9\n",
        }
    )
    assert words(script) == [
        ["--task", "x", "--r", "8", "--a", "1", "--b", "$B"],
        ["--task", "y", "--r", "8", "--a", "1", "--b", "$B"],
    ]
    assert {call.line for call in script.calls} == {4}
    assert {word.line for call in script.calls for word in call.arguments} == {4}
    assert {call.command.cwd for call in script.calls} == {"sub"}
    assert script.commands[-1].shell_variables["A"].value == "1"


def test_a_function_of_a_file_that_was_read_in_stands_where_it_is_called() -> None:
    script = read(
        {
            "job.sh": ". ./lib.sh\n\ntrain 1e-3\n",
            "lib.sh": "\n\n\n\n\n\ntrain() {\n  torchrun t.py --lr $1\n}\n",
        }
    )
    assert words(script) == [["--lr", "1e-3"]]
    assert [call.line for call in script.calls] == [3]


def test_scripts_that_lead_to_each_other_end() -> None:
    script = read({"job.sh": "python a.py\nbash x.sh\n", "x.sh": "python b.py\nbash job.sh\nsource x.sh\n"})
    assert [call.program.text for call in script.calls if call.program] == ["a.py", "b.py"]
    assert [note.partition(", which")[0] for note in script.notes] == [
        "x.sh: line 2 starts job.sh again",
        "x.sh: line 3 starts x.sh again",
    ]


def test_depth_and_number_are_bounded() -> None:
    deep = {f"{number}.sh": f"python t{number}.py\nbash {number + 1}.sh\n" for number in range(40)}
    script = read({**deep, "job.sh": "bash 0.sh\n"})
    assert 5 < len(script.calls) < 12
    assert "too many scripts" in script.notes[0]
    wide = read({"job.sh": "bash a.sh\n" * 200, "a.sh": "python t.py\n"})
    assert len(wide.calls) == 50
    assert len(wide.notes) == 150


def test_what_cannot_be_followed_stays_as_it_was() -> None:
    script = read(
        {
            "job.sh": "source $HOME/x.sh\nsource gone.sh\nbash gone.sh\nbash -c 'python a.py'\nsrun bash in.sh\n"
            "bash bad.sh\npython t.py --m $M\n",
            "in.sh": "python never.py\n",
            "bad.sh": "python t.py 'open\n",
        }
    )
    assert words(script) == [["--m", "$M"]]
    assert [word.text for word in script.sourced] == ["$HOME/x.sh", "gone.sh"]
    (note,) = script.notes
    assert note.startswith("bad.sh")
    assert "line 6 of job.sh leads there" in note


@pytest.mark.parametrize(
    "way", ['source "$(dirname "$0")/env.sh"', '. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/env.sh"']
)
def test_from_the_scripts_own_folder_and_never_run(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "env.sh").write_text("touch ran\nexport BATCH=4\n", encoding="utf-8")
    (folder / "env2.sh").write_text("exit\n", encoding="utf-8")
    script = folder / "job.sh"
    script.write_text(f"{way}\ndeepspeed t.py --per_device_train_batch_size $BATCH\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (stage,) = load_any(str(script)).stages
    assert stage.args["per_device_train_batch_size"] == 4
    assert not list(tmp_path.rglob("ran"))


def test_a_setting_of_a_started_script_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ds.json").write_text(
        '{"fp16": {"enabled": true}, "train_micro_batch_size_per_gpu": 8}', encoding="utf-8"
    )
    (tmp_path / "one.sh").write_text(
        "deepspeed t.py --deepspeed ds.json --per_device_train_batch_size $1\n", encoding="utf-8"
    )
    script = tmp_path / "job.sh"
    script.write_text("set -e\nbash one.sh 4\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = {finding.name: finding for finding in judged(script).findings}
    assert {"precision-disagrees", "config-disagrees"} <= set(found)
    assert ("job.sh", 2) in {(Path(one.source or "").name, one.line) for one in found["config-disagrees"].evidence}
