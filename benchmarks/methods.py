"""The continual-learning methods side by side: order_1 as `dsdoctor launch order_1` runs it, built-in model and data.

    python -m benchmarks.methods                                             all methods, seeds 0 to 2, recorded as JSON
    python -m benchmarks.methods --methods gorp --seeds 11 --set gorp_energy=0.99   to tune a default

Average is the mean accuracy in % over the four tasks at the end, BWT the backward transfer in points (what the earlier
tasks have lost since they were learnt, as a negative number). The seeds that are reported were not tuned on: 11 to 13
were. Every run is one process without a launcher; a seed changes the fresh adapters and the order of the examples.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).parents[1]
RECORDED = Path(__file__).parent / "recorded" / "methods.json"
ORDER = "order_1"
SEEDS = (0, 1, 2)
WORST, BEST = "seqlora", "olora"
POINTS = 10.0  # by how much O-LoRA's BWT is to be better than SeqLoRA's, on each seed

Result = dict[str, Any]


def _flags() -> dict[str, Any]:
    """The flags of the job file's tiny profile; those of single methods are left to the methods' own defaults."""
    import yaml

    job = yaml.safe_load((ROOT / "launch" / f"{ORDER}.yaml").read_text(encoding="utf-8"))
    flags = {**job["args"], **job["profiles"]["tiny"]["args"]}
    return {key: value for key, value in flags.items() if "${" not in str(value) and not key.startswith("lamda")}


def _keep_what_is_read() -> None:
    """Read each task once a process instead of once a stage."""
    sys.path.insert(0, str(ROOT / "launch"))
    from continual import data

    load, known = data.load, {}

    def load_once(*wanted: Any, **more: Any) -> Any:
        key = repr((wanted, more))
        if key not in known:
            known[key] = load(*wanted, **more)
        return known[key]

    data.load = load_once


def run(method: str, seed: int, settings: dict[str, str]) -> Result:
    """All stages of one run, in this process. Raises RuntimeError with what was said when a stage fails."""
    from continual import orders, train

    began = time.monotonic()
    tasks = orders.find(ORDER).tasks
    with tempfile.TemporaryDirectory() as folder:
        for stage, task in enumerate(tasks, 1):
            flags = _flags() | settings | {"method": method, "seed": seed, "task": task, "stage_index": stage}
            flags |= {"output_dir": f"{folder}/{stage}", "order": ORDER, "precision": "fp32"}
            flags["previous_output_dir"] = f"{folder}/{stage - 1}" if stage > 1 else ""
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = train.main([word for key, value in flags.items() for word in (f"--{key}", str(value))])
            if code != 0:
                raise RuntimeError(f"{method}, seed {seed}, stage {stage}:\n{said.getvalue()}")
        result: Result = json.loads(Path(folder, str(len(tasks)), "results.json").read_text(encoding="utf-8"))
    figures = {key: result[key] for key in ("accuracy", "average", "backward_transfer", "forgetting")}
    return {"method": method, "seed": seed} | figures | {"seconds": round(time.monotonic() - began, 1)}


def _spread(values: Sequence[float], sign: bool = False) -> str:
    text = f"{fmean(values):{'+' if sign else ''}.1f}"
    return f"{text} ± {stdev(values):.1f}" if len(values) > 1 else text


def table(results: Sequence[Result]) -> str:
    """A line a method: mean and standard deviation over the seeds, then each seed's average / BWT."""
    seeds = sorted({result["seed"] for result in results})
    lines = [
        "| method | average | BWT | " + " | ".join(f"seed {seed}" for seed in seeds) + " |",
        "|---" * (3 + len(seeds)) + "|",
    ]
    for method in dict.fromkeys(result["method"] for result in results):
        mine = {result["seed"]: result for result in results if result["method"] == method}
        averages = [mine[seed]["average"] for seed in seeds if seed in mine]
        transfers = [mine[seed]["backward_transfer"] for seed in seeds if seed in mine]
        each = [
            f"{mine[seed]['average']:.1f} / {mine[seed]['backward_transfer']:+.1f}" if seed in mine else "-"
            for seed in seeds
        ]
        lines.append(f"| {method} | {_spread(averages)} | {_spread(transfers, sign=True)} | " + " | ".join(each) + " |")
    return "\n".join(lines)


def aims(results: Sequence[Result]) -> list[str]:
    """What the runs were to show, and whether they do; nothing where a method was left out."""
    by = {(result["method"], result["seed"]): result for result in results}
    seeds = sorted({result["seed"] for result in results})
    lines = []
    if all((method, seed) in by for method in (WORST, BEST) for seed in seeds):
        gains = [by[BEST, seed]["backward_transfer"] - by[WORST, seed]["backward_transfer"] for seed in seeds]
        held = "holds" if min(gains) > POINTS else "does not hold"
        said = ", ".join(f"{gain:+.1f}" for gain in gains)
        lines.append(
            f"{BEST}'s BWT is better than {WORST}'s by more than {POINTS:g} points on each seed: {held} ({said})"
        )
    for method in ("gorp", "nlora"):
        if all((name, seed) in by for name in (method, "inclora") for seed in seeds):
            gain = fmean(by[method, seed]["average"] - by["inclora", seed]["average"] for seed in seeds)
            lines.append(
                f"{method} is better than inclora in the mean of the average: "
                f"{'holds' if gain > 0 else 'does not hold'} ({gain:+.1f} points)"
            )
    return lines


def _recorded(path: Path) -> list[Result]:
    """What a file holds, if it was recorded with the flags of now."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return list(record["results"]) if record["flags"] == _flags() else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def record(path: Path, new: Sequence[Result]) -> list[Result]:
    """Lay results over those of a file, by method and seed, and write it; gives all of them."""
    by = {(result["method"], result["seed"]): result for result in [*_recorded(path), *new]}
    results = [by[key] for key in sorted(by)]
    text = json.dumps({"order": ORDER, "flags": _flags(), "results": results, "aims": aims(results)}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    return results


def main(argv: Sequence[str] = ()) -> str:
    """Run, record what was run with the methods' defaults after each run, and give the table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _keep_what_is_read()
    from continual import methods

    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods")
    parser.add_argument("--methods", nargs="*", choices=methods.NAMES, default=list(methods.NAMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--set", nargs="+", default=[], metavar="FLAG=VALUE", help="flags of the stages; not recorded")
    parser.add_argument("--record", type=Path, default=RECORDED, help="laid over what it holds")
    args = parser.parse_args(list(argv))
    settings = dict(pair.split("=", 1) for pair in args.set)
    results: list[Result] = []
    for method in args.methods:
        for seed in args.seeds:
            results.append(last := run(method, seed, settings))
            said = f"average {last['average']:.2f} BWT {last['backward_transfer']:+.2f} in {last['seconds']} s"
            print(f"{method} seed {seed} {settings or ''}: {said}", file=sys.stderr, flush=True)
            if not settings:
                record(args.record, results)
    everything = results if settings else record(args.record, results)
    return "\n".join([table(everything), "", *aims(everything)]).rstrip()


if __name__ == "__main__":
    print(main(sys.argv[1:]))
