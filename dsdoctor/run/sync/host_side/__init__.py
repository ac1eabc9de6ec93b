"""The host's side of a sync: a package for any Python from 3.8 on, sent over ssh and talked with line by line.

It makes the folders, refuses foreign ones, says who uses them, holds a lock while files are copied, and takes its own
traces away when the line ends, however it ends. `conversation` is what is called; what only few syncs need is imported
where it is needed, for the host waits for every import of its Python.
"""

MARK = "<<<dsdoctor-sync "  # in front of every answer
PING, PONG = b"ping\n", "pong\n"
MARKER = ".dsdoctor-sync"  # a folder that carries it is dsdoctor's own
TOKENS = ".dsdoctor-tokens"
LOCK = ".dsdoctor-lock"
USED = ".dsdoctor-used"  # below it, one file for each run that was given this code
TEMP = ".dsdoctor-temp"
PARTIAL = ".dsdoctor-partial"
ASIDE = ".~tmp~"  # where rsync --delay-updates keeps files until all are there
OWN = (MARKER, TOKENS, LOCK, USED, TEMP, PARTIAL)
