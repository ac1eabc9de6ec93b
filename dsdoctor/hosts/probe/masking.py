"""Which variables matter, and which values are nobody's business."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

VALUE_CHARACTERS = 8192  # of one environment variable
# Beginnings of the names that matter to training, and names as a whole.
BEGINNINGS = tuple(
    "NCCL TORCH GLOO CUDA NVIDIA_ OMP_ MKL_ KMP_ GOMP_ OPENBLAS_ NUMEXPR_ PYTORCH PYTHON DS_ DEEPSPEED HF_ HUGGING "
    "TRANSFORMERS ACCELERATE FSDP DATASETS_ TRITON_ WANDB MLFLOW TENSORBOARD MASTER_ LOCAL_ GROUP_ ROLE_ PET_ SLURM_ "
    "OMPI_ PMI MV2_ UCX_ UCC_ FI_ RDMA IBV_ MLX5_ AWS_OFI LD_ CONDA VIRTUAL_ENV UV_ TOKENIZERS_ BNB_ NVCC HIP_ ROCR_ "
    "HSA_ FLASH_ATTENTION XFORMERS".split()
)
NAMES = frozenset(
    "RANK WORLD_SIZE NODE_RANK NNODES NPROC_PER_NODE PATH MAX_JOBS CC CXX CFLAGS CXXFLAGS LDFLAGS TMPDIR HOME SHELL "
    "LANG LC_ALL XDG_CACHE_HOME".split()
)
SLIP = r"N{1,2}C{1,2}L{0,2}C?L?_"  # the usual slips in "NCCL_"
SECRET = "TOKEN KEY SECRET PASSW PASSPHRASE CREDENTIAL AUTH".split()
# Shapes of well-known tokens, wherever they stand: Hugging Face, GitHub, OpenAI, AWS, Slack, JSON web tokens.
TOKEN_SHAPES = (
    r"\b(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|xox[a-z]-[\w-]{10,}|"
    r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
TOKEN_PARTS = ("hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "sk-", "AKIA", "xox", "eyJ")  # one is in every token
USER_INFO = r"(?<=://)[^\s/@]+(?=@)"


def relevant(name: str) -> bool:
    """Whether a variable matters to training."""
    if name.startswith(BEGINNINGS) or name in NAMES:
        return True
    if name[-6:] in ("_proxy", "_PROXY"):
        before = name[:-6]
        return bool(before) and before.replace("_", "a").isalnum()
    if not name.startswith(("NC", "NNC")) or "_" not in name:
        return False
    import re

    return bool(re.match(SLIP, name))


def secret(name: str) -> bool:
    """Whether a variable's name says that its value is nobody's business."""
    upper = name.upper()
    if not any(word in upper for word in SECRET):
        return False
    if name.startswith("TOKENIZERS_"):  # the library's settings
        rest = name[len("TOKENIZERS_") :]
        return not rest or not rest.replace("_", "a").isalnum()
    if name.startswith("UCX_IB_PKEY"):  # a number of a partition
        return not name.replace("_", "a").isalnum()
    return name != "NCCL_IB_PKEY"


def masked(value: str) -> str:
    """A value without passwords inside URLs and without anything that looks like a token."""
    if ("://" in value and "@" in value) or any(part in value for part in TOKEN_PARTS):
        import re

        value = re.sub(TOKEN_SHAPES, "***", re.sub(USER_INFO, "***", value))
    return value if len(value) <= VALUE_CHARACTERS else value[:VALUE_CHARACTERS] + "..."


def visible(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The pairs that may be reported."""
    return {name: masked(value) for name, value in pairs if not secret(name)}
