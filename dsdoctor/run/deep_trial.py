"""The steps of the deep trial: what runs on a host, each in a process of its own below a guardian.

Sent as text to the job's own interpreter, nothing is installed. A step prints what it saw as lines of MARK and JSON, as
soon as it has seen it, so that a step that crashes or hangs still says how far it came. torch is imported here, by name
and on the host alone: this file never runs in dsdoctor's own process. Python 3.8 and newer, torch 1.10 and newer.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TYPE_CHECKING = False  # typing is slow to import, and there is no need of it on the host
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

MARK = "<<<dsdoctor-deep "
MIB = 1 << 20
FILLED = 256 * MIB  # bytes allocated on each GPU, a quarter of what is free where that is less
COPIED = 64 * MIB  # bytes copied between two GPUs
LARGE = 8 * MIB  # all-reduces from here on are left out when they would take too long


def tell(value: dict[str, Any]) -> None:
    """Print what was seen, as one write: ranks share a stream."""
    sys.stdout.write(f"\n{MARK}{json.dumps(value)}\n")
    sys.stdout.flush()


def reason(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:500]


# --- torch, and packages with compiled parts


def step_torch(order: dict[str, Any]) -> None:
    """Import torch; say which it is, how many GPUs it sees, and which NCCL it has loaded."""
    begun = time.perf_counter()
    torch = importlib.import_module("torch")
    seen: dict[str, Any] = {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "path": str(torch.__file__ or ""),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "import_seconds": round(time.perf_counter() - begun, 3),
    }
    tell({"torch": seen})  # what follows talks to the driver, and may not come back
    begun = time.perf_counter()
    seen["nccl"] = nccl_version(torch)
    seen["gpus"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not seen["gpus"] and order["gpus"] and torch.version.cuda:
        try:
            torch.cuda.init()
        except Exception as error:  # whatever the driver says is what is wanted
            seen["gpu_error"] = reason(error)
    seen["cuda_seconds"] = round(time.perf_counter() - begun, 3)
    tell({"torch": seen})


def nccl_version(torch: Any) -> str | None:
    """The version of the NCCL that is loaded, as it says itself; None for a build without."""
    try:
        version = torch.cuda.nccl.version()
    except Exception:  # AttributeError or RuntimeError, by the version of torch
        return None
    if isinstance(version, int):  # before torch 1.10
        major = 10000 if version >= 10000 else 1000
        version = (version // major, version % major // 100, version % 100)
    return ".".join(str(part) for part in version)


def step_import(order: dict[str, Any]) -> None:
    """Import one package with compiled parts."""
    module = importlib.import_module(order["module"])
    tell({"import": str(getattr(module, "__version__", ""))})


# --- each GPU


def step_gpus(order: dict[str, Any]) -> None:
    """Fill memory on each GPU and read it back, multiply matrices of which the exact product is known."""
    torch = importlib.import_module("torch")
    for index in order["items"]:
        tell({"begin": index})
        begun = time.perf_counter()
        seen: dict[str, Any] = {"gpu": index}
        try:
            for _ in gpu_works(torch, index, seen):
                torch.cuda.synchronize(index)
        except Exception as error:
            seen["error"] = reason(error)
        seen["seconds"] = round(time.perf_counter() - begun, 3)
        tell({"done": index, **seen})
        if "error" in seen:
            return  # an error of CUDA may have spoilt the whole process: the rest is done in another one


def gpu_works(torch: Any, index: int, seen: dict[str, Any]) -> Iterator[None]:
    """Put what a GPU does right and wrong into `seen`, and yield after each thing that was asked of it."""
    device = f"cuda:{index}"
    torch.cuda.set_device(index)
    seen["name"] = torch.cuda.get_device_name(index)
    yield
    free, total = torch.cuda.mem_get_info(index)
    seen["free_bytes"], seen["total_bytes"] = free, total
    count = min(FILLED, free // 4) // 8
    filled = torch.arange(count, dtype=torch.int64, device=device)
    yield
    seen["filled_bytes"] = count * 8
    # Compared with numbers that are made anew, in pieces: what is wrong is what the memory has changed.
    piece = max(1, count // 8)
    seen["wrong"] = sum(
        int((filled[at : at + piece] != torch.arange(at, min(at + piece, count), device=device)).sum())
        for at in range(0, count, piece)
    )
    del filled
    for name in ("float32", "float16", "bfloat16"):
        seen.setdefault("products", {})[name] = None
        if name == "bfloat16" and torch.cuda.get_device_capability(index) < (8, 0):
            continue
        seen["products"][name] = wrong_products(torch, device, getattr(torch, name))
        yield


def wrong_products(torch: Any, device: str, kind: Any) -> int:
    """How many numbers of a matrix product are wrong.

    The factors are -1, 0 and 1 and the sums have at most 128 parts: every precision holds them exactly.
    """
    torch.manual_seed(0)
    one, other = torch.randint(-1, 2, (1024, 128)).float(), torch.randint(-1, 2, (128, 1024)).float()
    wanted = one @ other
    product = one.to(device).to(kind) @ other.to(device).to(kind)
    return int((product.float().cpu() != wanted).sum())


def step_copies(order: dict[str, Any]) -> None:
    """Copy known numbers between each two GPUs, both ways, and look at what has arrived."""
    torch = importlib.import_module("torch")
    for one, other in order["items"]:
        tell({"begin": [one, other]})
        seen: dict[str, Any] = {"ways": []}
        try:
            for source, target in ((one, other), (other, one)):
                seen["ways"].append(copied(torch, source, target))
        except Exception as error:
            seen["error"] = reason(error)
        tell({"done": [one, other], **seen})
        if "error" in seen:
            return


def copied(torch: Any, source: int, target: int) -> dict[str, Any]:
    """One way between two GPUs: whether they reach each other's memory, what arrived wrong, and how fast it was."""
    there, here = f"cuda:{source}", f"cuda:{target}"
    count = COPIED // 8
    numbers = torch.arange(count, dtype=torch.int64, device=there) * 2654435761 + source
    arrived = torch.zeros(count, dtype=torch.int64, device=here)
    torch.cuda.synchronize(source)
    arrived.copy_(numbers)
    torch.cuda.synchronize(target)
    wanted = torch.arange(count, dtype=torch.int64, device=here) * 2654435761 + source  # made where it is compared
    wrong = arrived != wanted
    seen: dict[str, Any] = {
        "source": source,
        "target": target,
        "peer_access": bool(torch.cuda.can_device_access_peer(target, source)),
        "wrong": int(wrong.sum()),
        "numbers": count,
    }
    if seen["wrong"]:
        seen["first_wrong"] = int(wrong.nonzero()[0])
        seen["zeros"] = int((arrived[wrong] == 0).sum())  # never written
    times = []
    for _ in range(4):
        torch.cuda.synchronize(source)
        torch.cuda.synchronize(target)
        begun = time.perf_counter()
        arrived.copy_(numbers, non_blocking=True)
        torch.cuda.synchronize(source)
        torch.cuda.synchronize(target)
        times.append(time.perf_counter() - begun)
    seen["gigabytes_per_second"] = round(count * 8 / max(min(times), 1e-9) / 1e9, 3)
    return seen


# --- all ranks


def step_reduce(order: dict[str, Any]) -> int:
    """Start this host's ranks as `launch` does, with torchrun and a static rendezvous; the exit code is torchrun's.

    Port 0 stands for a free one: ranks of one host meet at its own loopback address.
    """
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda seen, _: stop.append(seen))
    folder = tempfile.mkdtemp(prefix="dsdoctor-")  # torchrun leaves one of its own behind when it is given none
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", folder)  # else torch may make one of its own in /tmp
    try:
        process = subprocess.Popen([*torchrun(order, folder), *sys.argv[1:2], "rank", json.dumps(order)])
        while process.poll() is None and not stop:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        if stop:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            process.kill()  # nobody else makes files in its folder; the ranks are the guardian's, which has told us
            process.wait()
        return 1 if process.returncode is None or process.returncode < 0 else process.returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def torchrun(order: dict[str, Any], folder: str) -> list[str]:
    """The command line of torchrun, up to the ranks' own program, which is this one."""
    port = order["port"]
    if not port:
        with socket.socket() as free:
            free.bind((order["address"], 0))
            port = free.getsockname()[1]
    return [
        *(sys.executable, "-u", "-m", "torch.distributed.run"),
        *("--nnodes", str(order["nnodes"]), "--node_rank", str(order["node_rank"])),
        *("--nproc_per_node", str(order["nproc"]), "--master_addr", order["address"], "--master_port", str(port)),
        *("--rdzv_conf", f"timeout={order['timeout']}", "--max_restarts", "0", "--log_dir", folder, "--tee", "3"),
        *("--no_python", sys.executable, "-u", "-c", BOOT),
    ]


def step_rank(order: dict[str, Any]) -> None:
    """One rank: join the others, add up numbers with them, say what came of it."""
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    seen: dict[str, Any] = {"rank": rank, "local_rank": local, "host": socket.gethostname()}
    seen["interface"] = os.environ.get(f"{order['backend'].upper()}_SOCKET_IFNAME", "")
    begun = time.perf_counter()

    def at(point: str, **more: Any) -> None:
        tell({**seen, **more, "at": point, "seconds": round(time.perf_counter() - begun, 3)})

    at("started")
    torch = importlib.import_module("torch")
    dist = importlib.import_module("torch.distributed")
    timedelta = importlib.import_module("datetime").timedelta
    device = "cpu"
    if order["backend"] == "nccl":
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
        seen["device"] = torch.cuda.get_device_name(local)
    at("imported")
    dist.init_process_group(order["backend"], timeout=timedelta(seconds=order["timeout"]))
    at("joined")
    sums: list[dict[str, Any]] = []
    for size in order["sizes"]:
        at("adding", adding=size, sums=sums)
        if size >= LARGE and too_long(torch, dist, device, sums, size, order["patience"]):
            at("adding", too_long=size, sums=sums)
            break
        sums.append(add_up(torch, dist, device, size))
    dist.barrier()
    at("done", sums=sums)


def too_long(torch: Any, dist: Any, device: str, sums: Sequence[dict[str, Any]], size: int, patience: float) -> bool:
    """Whether an all-reduce of that size would take longer than there is patience for; all ranks say the same."""
    if not sums:
        return False
    guess = torch.tensor([sums[-1]["seconds"] * size / sums[-1]["bytes"]], device=device)
    dist.all_reduce(guess, op=dist.ReduceOp.MAX)
    return bool(guess.item() * 3 > patience)


def add_up(torch: Any, dist: Any, device: str, size: int) -> dict[str, Any]:
    """All-reduce so many bytes, compare the sum with the one that is known, and take the time of further ones."""
    rank, world = dist.get_rank(), dist.get_world_size()
    count = size // 4
    pattern = torch.arange(count, device=device) % 7 + 1  # whole numbers: float32 adds them exactly
    numbers = pattern.float() * (rank + 1)
    dist.all_reduce(numbers)
    wrong = int((numbers != pattern.float() * (world * (world + 1) // 2)).sum())
    again = 20 if size < 1 << 16 else 5 if size < LARGE else 2
    numbers.zero_()  # summed over and over, numbers would grow out of float32
    dist.barrier()
    begun = time.perf_counter()
    for _ in range(again):
        dist.all_reduce(numbers)
    if device != "cpu":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - begun) / again
    return {"bytes": size, "seconds": round(seconds, 7), "wrong": wrong}


# Runs the text that stands as its first argument; a queue.py in the folder must not hide the library's.
BOOT = (
    "import sys;sys.path[:]=filter(None,sys.path);"
    'exec(compile(sys.argv[1],"dsdoctor-deep","exec"),{"__name__":"__main__"})'
)

STEPS = {
    "torch": step_torch,
    "import": step_import,
    "gpus": step_gpus,
    "copies": step_copies,
    "reduce": step_reduce,
    "rank": step_rank,
}


def main() -> None:
    """Carry out the step that the second argument names, with the order in the third."""
    code = STEPS[sys.argv[2]](json.loads(sys.argv[3])) or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what torch does while it is taken down is no part of the trial (pytorch#190489)


if __name__ == "__main__":
    main()
