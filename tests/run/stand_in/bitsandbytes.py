"""A stand-in for a bitsandbytes that can be imported."""

__version__ = "0.50.1"
