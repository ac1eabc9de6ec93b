"""dsdoctor: look at the hosts, plan the job for these very hosts, start it, and say why it broke."""

__version__ = "0.1.0"
