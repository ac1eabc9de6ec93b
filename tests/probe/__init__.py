"""The probe in a process of its own, its parsers by table, and what becomes of its answer: snapshots, redaction."""
