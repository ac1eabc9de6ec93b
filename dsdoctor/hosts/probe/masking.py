"""Which variables matter, and which values are nobody's business."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

VALUE_CHARACTERS = 8192  # of one environment variable
# Beginnings of the names that matter to training; a name may also be given whole. The last pattern catches the usual
# slips in "NCCL_".
RELEVANT = re.compile(
    r"^(NCCL|TORCH|GLOO|CUDA|NVIDIA_|OMP_|MKL_|KMP_|GOMP_|OPENBLAS_|NUMEXPR_|PYTORCH|PYTHON|DS_|DEEPSPEED|HF_|"
    r"HUGGING|TRANSFORMERS|ACCELERATE|FSDP|DATASETS_|TRITON_|WANDB|MLFLOW|TENSORBOARD|MASTER_|RANK$|WORLD_SIZE$|LOCAL_|"
    r"NODE_RANK$|NNODES$|NPROC_PER_NODE$|GROUP_|ROLE_|PET_|SLURM_|OMPI_|PMI|PMIX|MV2_|UCX_|UCC_|FI_|RDMA|IBV_|MLX5_|"
    r"AWS_OFI|LD_|PATH$|CONDA|"
    r"VIRTUAL_ENV|UV_|TOKENIZERS_|BNB_|MAX_JOBS$|CC$|CXX$|CFLAGS$|CXXFLAGS$|LDFLAGS$|NVCC|TMPDIR$|HOME$|SHELL$|LANG$|"
    r"LC_ALL$|HIP_|ROCR_|HSA_|XDG_CACHE_HOME$|FLASH_ATTENTION|XFORMERS|\w+_proxy$|\w+_PROXY$)|^N{1,2}C{1,2}L{0,2}C?L?_"
)
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW|PASSPHRASE|CREDENTIAL|AUTH", re.I)
NOT_SECRET = re.compile(r"^(TOKENIZERS_\w+|NCCL_IB_PKEY|UCX_IB_PKEY\w*)$")
# Shapes of well-known tokens, wherever they stand: Hugging Face, GitHub, OpenAI, AWS, Slack, JSON web tokens.
TOKEN_SHAPES = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|xox[a-z]-[\w-]{10,}|"
    r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
USER_INFO = re.compile(r"(?<=://)[^\s/@]+(?=@)")


def secret(name: str) -> bool:
    """Whether a variable's name says that its value is nobody's business."""
    return bool(SECRET.search(name)) and not NOT_SECRET.match(name)


def masked(value: str) -> str:
    """A value without passwords inside URLs and without anything that looks like a token."""
    value = TOKEN_SHAPES.sub("***", USER_INFO.sub("***", value))
    return value if len(value) <= VALUE_CHARACTERS else value[:VALUE_CHARACTERS] + "..."


def visible(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The pairs that may be reported."""
    return {name: masked(value) for name, value in pairs if not secret(name)}
