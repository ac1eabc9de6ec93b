"""Giving every host its files, and bringing outputs back: rsync through the job's own ssh.

`carry_out` is the whole of it; `code` and `tree` copy to one host, `session` and `host_side` are the two ends of what
is asked there, `view` tells who shares whose folder, `use` who uses it, `rsync` runs the program.
"""
