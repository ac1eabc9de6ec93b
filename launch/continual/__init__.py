"""Continual learning with LoRA, one stage at a time: the training that `dsdoctor launch order_1` starts.

Copied to the hosts as it is and started by torchrun as `python -m continual.train`; it imports nothing of dsdoctor.
"""


class ContinualError(Exception):
    """Something the user can mend: the text says what is, where, the value seen and the value wanted."""


class AgreedError(ContinualError):
    """The same error, raised on every rank at the same point: rank 0 prints it for all."""
