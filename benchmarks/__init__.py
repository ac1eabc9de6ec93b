"""Benchmarks: dsdoctor beside a rival in the same run. `make bench` runs all, `python -m benchmarks NAME` one."""
