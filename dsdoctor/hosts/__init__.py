"""Reaching hosts: hostfile, transports, the probe that runs there, and gathering its facts in parallel."""
