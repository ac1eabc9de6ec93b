"""The probe: learns the facts of the host it runs on and prints them as one line of JSON between two marker lines.

It is sent over standard input to the job's own interpreter (see dsdoctor/hosts/sent.py), with a base64 JSON object as
its argument: `targets`, `paths`, `places`, `inputs`, `variables`, `timeout` and `sections`, all optional. Its modules
import nothing but the standard library of Python 3.8 and each other; nothing is left behind on the host.

It reads rather than runs: files, /proc, /sys, the kernel's own answers, NVML, and a few short programs (`dkms status`,
`gcc --version` ...). Sections are worked on in forked processes, so that a hanging network mount, a dead name server or
a crashing driver library costs one section and not the answer.
"""

SCHEMA = "dsdoctor.facts/1"
PROBE_VERSION = "1"
BEGIN = "<<<dsdoctor-facts"
END = "dsdoctor-facts>>>"
# The answer of a probe that could not begin; %s is the reason as a JSON string.
REFUSAL = '\n%s\n{"schema": "%s", "probe_version": "%s", "recorded_at": "", "error": %%s, "sections": {}}\n%s\n' % (
    BEGIN,
    SCHEMA,
    PROBE_VERSION,
    END,
)
