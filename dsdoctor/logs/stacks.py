"""What the stacks of all ranks say together when a run stands still: who waits, in which collective, and for whom.

What a host answered (see `run/ranks_on_host.py`) becomes one `Look` a rank; :func:`judge` tells a run that works in
silence (an evaluation, a checkpoint, rank 0 tokenizing) from one in which nothing moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

FRAMES, THREADS = 120, 64  # kept
LOOP_PATIENCE = 30  # times the usual limit, for one rank that computes while the others wait
BUSY = 0.1  # cores: less is waiting, also where more processes want a core than there are; a poll takes 0.02
MOVING_BYTES = 1 << 20  # a second: less is a heartbeat

# Functions of torch.distributed and deepspeed.comm that wait for the other ranks.
COLLECTIVES = frozenset(
    {
        *("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "all_to_all", "all_to_all_single"),
        *("reduce", "reduce_scatter", "reduce_scatter_tensor", "broadcast", "broadcast_object_list", "barrier"),
        *("gather", "gather_object", "scatter", "scatter_object_list", "send", "recv", "isend", "irecv", "wait"),
        *("monitored_barrier", "all_reduce_coalesced", "all_gather_coalesced", "inference_all_reduce"),
        *("init_process_group", "new_group", "destroy_process_group", "_verify_param_shape_across_processes"),
    }
)
_DISTRIBUTED = ("torch/distributed/", "deepspeed/comm/", "torch/nn/parallel/")
_BACKWARD = frozenset({"backward", "_engine_run_backward"})
_LIBRARY = ("/site-packages/", "/dist-packages/", "/lib/python3", "/lib64/python3", "<frozen ", "<string>")

EVALUATING = frozenset(
    {
        *("evaluate", "evaluation_loop", "_evaluate", "run_evaluation", "validate", "validation_step", "_run_eval"),
        *("predict", "prediction_loop", "prediction_step", "generate", "test_step", "eval_step", "run_validation"),
    }
)
SAVING = frozenset(
    {
        *("save", "save_checkpoint", "_save_checkpoint", "save_pretrained", "save_model", "_save", "save_file"),
        *("save_state_dict", "async_save", "save_state", "push_to_hub", "_save_optimizer_and_scheduler"),
    }
)


class Frame(NamedTuple):
    """A frame of a Python stack."""

    name: str
    file: str
    line: int

    @property
    def place(self) -> str:
        """`train.py:31`."""
        return f"{self.file.rsplit('/', 1)[-1]}:{self.line}"

    @property
    def own(self) -> bool:
        """Whether it is of the program itself rather than of a library."""
        return not any(part in self.file for part in _LIBRARY)


@dataclass(frozen=True)
class Look:
    """One rank as it was seen: twice, some seconds apart."""

    host: str
    rank: int
    pid: int
    state: str = "S"  # proc(5)
    cpu: float = 0.0  # cores
    moved_bytes: float = 0.0  # a second
    wait: str = ""  # the kernel function that it sleeps in
    frames: tuple[Frame, ...] = ()  # of its main thread, the innermost first
    moved: bool = False
    gpu: bool = False
    problem: str = ""

    @property
    def stopped(self) -> bool:
        """Whether a signal or a debugger holds it."""
        return self.state in ("T", "t")

    @property
    def collective(self) -> Frame | None:
        """The frame in which it waits for other ranks."""
        for frame in self.frames[:12]:
            if frame.name in COLLECTIVES and any(part in frame.file for part in _DISTRIBUTED):
                return frame
        return None

    @property
    def phase(self) -> str | None:
        """`evaluation` or `saving`, by the names of the functions it is in."""
        names = {frame.name for frame in self.frames}
        return "evaluation" if names & EVALUATING else "saving" if names & SAVING else None

    @property
    def working(self) -> bool | None:
        """Whether it works; None where a rank that waits for its GPU would look the same."""
        if self.stopped or self.collective is not None:
            return False
        if self.moved or self.moved_bytes >= MOVING_BYTES:
            return True
        busy = self.cpu >= BUSY or self.state == "R"
        return None if busy and self.gpu else busy

    @property
    def place(self) -> str:
        """Where it is, in a few words; equal for ranks that are at the same place."""
        own = next((frame for frame in self.frames if frame.own), None)
        if self.stopped:
            return "is stopped (state T: SIGSTOP, Ctrl-Z or a debugger)"
        if self.collective is not None:
            at = f" ({own.place})" if own else ""
            return f"waits in {self.collective.name}{at}"
        if self.frames and self.frames[0].name in _BACKWARD:
            at = f" ({own.place})" if own else ""
            return f"is in backward{at}, where gradients are joined"
        if self.frames:
            frame = own or self.frames[0]
            inside = "" if frame is self.frames[0] else f", in {self.frames[0].name}"
            return f"is in {frame.name} ({frame.place}{inside})"
        if self.state == "D":
            return f"hangs in the kernel (state D, {self.wait or 'unknown'}): a disk or a file system does not answer"
        return f"sleeps in {self.wait}" if self.wait else "computes" if self.cpu >= BUSY else "sleeps"


Kind = Literal["working", "waiting", "unclear", "stuck"]


@dataclass(frozen=True)
class Standing:
    """What the ranks do together.

    working: none waits for another. waiting: some wait for one that works. unclear: busy on GPUs or not to be seen.
    stuck: nothing moves. `patience` is how many times the usual limit must pass before that is called a stall.
    """

    kind: Kind
    text: str
    behind: Look | None = None
    patience: float = 1.0


def judge(looks: Sequence[Look], hidden: Sequence[str] = ()) -> Standing:
    """Say what the ranks do. `hidden` names hosts that could not be looked at."""
    unseen = f"; {', '.join(hidden)} could not be looked at" if hidden else ""
    if not looks:
        return Standing("unclear", f"no process of a rank was seen{unseen}", patience=3)
    text = where_ranks_are(looks) + unseen
    stopped = [look for look in looks if look.stopped]
    if stopped:
        one = stopped[0]
        return Standing("stuck", f"{text}; kill -CONT {one.pid} on {one.host} wakes it", one)
    working = [look for look in looks if look.working]
    unclear = [look for look in looks if look.working is None]
    idle = [look for look in looks if look.working is False]
    if working and not idle:
        return Standing("working", text)
    if working:
        endless = any(look.phase for look in working)  # an evaluation or a checkpoint takes what it takes
        return Standing("waiting", text, working[0], patience=math.inf if endless else LOOP_PATIENCE)
    if unclear or hidden:
        return Standing("unclear", text, _odd_one(looks), 10 if any(look.phase for look in unclear) else 3)
    return Standing("stuck", text + _conclusion(looks), _odd_one(looks))


def where_ranks_are(looks: Sequence[Look]) -> str:
    """Ranks by place: who is elsewhere first, those that wait for others last."""
    groups: dict[str, list[Look]] = {}
    for look in sorted(looks, key=lambda each: each.rank):
        groups.setdefault(look.place, []).append(look)
    order = sorted(groups.items(), key=lambda item: (item[1][0].collective is not None, len(item[1]), item[1][0].rank))
    return ", ".join(f"{_names(group)} {_plural(place, len(group))}" for place, group in order)


def _odd_one(looks: Sequence[Look]) -> Look | None:
    """The rank that the others wait for: the one outside of a collective, or alone at its place."""
    outside = [look for look in looks if look.collective is None]
    if outside and len(outside) < len(looks):
        return outside[0]
    places: dict[str, list[Look]] = {}
    for look in looks:
        places.setdefault(look.place, []).append(look)
    alone = [group[0] for group in places.values() if len(group) == 1]
    return alone[0] if len(alone) == 1 and len(looks) > 2 else None


def _conclusion(looks: Sequence[Look]) -> str:
    names = {look.collective.name for look in looks if look.collective is not None}
    outside = [look for look in looks if look.collective is None]
    if names and outside:
        return f": {_names(outside)} {'is' if len(outside) == 1 else 'are'} behind"
    if len(names) > 1:
        return ": different collectives, so the order of the program differs between ranks"
    if names and len(looks) > 1:
        return ": none is behind, so what they send does not arrive"
    return ""


def _names(looks: Sequence[Look]) -> str:
    """`rank 1 on node1`, `ranks 0, 2-5`."""
    if len(looks) == 1:
        return f"rank {looks[0].rank} on {looks[0].host}"
    parts: list[list[int]] = []
    for rank in sorted(look.rank for look in looks):
        if parts and rank == parts[-1][-1] + 1:
            parts[-1].append(rank)
        else:
            parts.append([rank])
    words = [str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts]
    return f"ranks {', '.join(words)}"


def _plural(place: str, count: int) -> str:
    if count == 1:
        return place
    verb, _, rest = place.partition(" ")
    return f"{'are' if verb == 'is' else verb[: -verb.endswith('s') or None]} {rest}".rstrip()


# --- what a host answered


def looks_of(host: str, answer: Any) -> list[tuple[Look, str]]:
    """The ranks of a host's answer, each with its text for a file. What is not as expected is left out."""
    entries = answer.get("ranks") if isinstance(answer, dict) else None
    found = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("rank"), int) and isinstance(entry.get("pid"), int):
            look = _look(host, entry)
            found.append((look, _text(look, entry)))
    return found


def _look(host: str, entry: dict[str, Any]) -> Look:
    pid = entry["pid"]
    threads = _threads(entry)
    main = [thread for thread in threads if thread.get("os_thread_id") == pid] or threads[:1]
    return Look(
        host=host,
        rank=entry["rank"],
        pid=pid,
        state=str(entry.get("state"))[:1],
        cpu=float(entry.get("cpu") or 0),
        moved_bytes=float(entry.get("moved_bytes") or 0),
        wait=str(entry.get("wait") or "")[:80],
        frames=_frames(main[0]) if main else (),
        moved=bool(entry.get("moved")),
        gpu=bool(entry.get("gpu")),
        problem=str(entry.get("problem") or "")[:400],
    )


def _threads(entry: dict[str, Any]) -> list[dict[str, Any]]:
    stacks = entry.get("stacks")
    return [each for each in stacks if isinstance(each, dict)][:THREADS] if isinstance(stacks, list) else []


def _frames(thread: dict[str, Any]) -> tuple[Frame, ...]:
    frames = thread.get("frames")
    return tuple(
        Frame(str(each.get("name"))[:200], str(each.get("filename"))[:500], int(each.get("line") or 0))
        for each in (frames if isinstance(frames, list) else [])[:FRAMES]
        if isinstance(each, dict)
    )


def _text(look: Look, entry: dict[str, Any]) -> str:
    """What is kept of a rank: its state, its Python stacks, and where its threads are in the kernel."""
    lines = [
        f"rank {look.rank} on {look.host}, process {look.pid}: state {look.state}, {look.cpu:.2f} cores, "
        f"{look.moved_bytes / 1e6:.1f} MB/s read and written, {look.wait or '-'}",
        f"it {look.place}; its stack {'changed' if look.moved else 'did not change'} between two looks",
    ]
    for thread in _threads(entry):
        state = "active" if thread.get("active") else "idle"
        lines += ["", f"Thread {thread.get('os_thread_id')} ({state}): {thread.get('thread_name') or '-'}"]
        lines += [f"    {frame.name} ({frame.file}:{frame.line})" for frame in _frames(thread)]
    if look.problem:
        lines += ["", f"no Python stack: {look.problem}"]
    if entry.get("signalled"):
        lines.append(f"{entry['signalled']} was sent: the traceback is in the rank's log")
    tasks = entry.get("threads")
    if isinstance(tasks, list) and tasks:
        lines += ["", "threads in the kernel: id, name, state, waits in, system call"]
        for task in [each for each in tasks if isinstance(each, dict)][:THREADS]:
            lines.append("  " + "  ".join(str(task.get(key) or "-") for key in ("id", "name", "state", "wait", "call")))
            lines += [f"      {each}" for each in str(task.get("kernel") or "").splitlines()[:20]]
    return "\n".join(lines) + "\n"
