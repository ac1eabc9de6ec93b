"""What runs on a host beside the job: the keeper, the guardian, and the follower of a guardian that was left alone.

All of it is sent over the transport's standard input and run by the job's own Python (3.8 or newer, standard library
only); nothing is installed. `sent.py` packs these modules, `main.py` is what starts on the host.

Two processes guard a job. The *keeper* is what the transport started; it forks the *guardian*, which starts the job.
Both are subreapers: a rank that forks a child and dies leaves that child with the guardian, not with init, and when the
guardian is killed outright everything falls to the keeper, which ends it and reports that. When the keeper is killed
the kernel tells the guardian (PR_SET_PDEATHSIG), which ends the job. So one `kill -9` of either leaves no orphan. A
control group would do the same, but needs root or a delegated cgroup v2; a subreaper needs neither.

Stopping means "every descendant of mine", found in /proc, and never a name or a pattern.
"""

MARKER = "<<<dsdoctor-guardian"  # before the first frame, so that a login shell's banner is not taken for one
