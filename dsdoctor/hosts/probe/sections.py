"""The modules that register sections, in the order in which the answer has them: who imports this has all."""

# ruff: noqa: F401, I001

from __future__ import annotations

from . import system
from . import limits
from . import infiniband
from . import packages
from . import torch_build
from . import prebuilt
from . import requirements
from . import binaries
from . import nccl
from . import gpu
from . import driver
from . import pci
from . import kernel_log
from . import cuda
from . import compilers
from . import network
from . import disk
from . import extensions
from . import session
from . import inputs
from . import environment
from .question import SECTIONS as SECTIONS
