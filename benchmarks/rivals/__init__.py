"""What `benchmarks.verdicts` puts `dsdoctor diagnose` beside: keyword tables, and checkouts of other programs."""
