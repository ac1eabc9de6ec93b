"""Failures that really happen when asked to: each is a small file, run in a sandbox or on the little cluster."""
