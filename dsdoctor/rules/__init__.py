"""The knowledge base of `diagnose`: one YAML file a root cause, each with its own samples."""
