"""Text of a job in, a verdict out: lines, rules, verdict, report. Pure: nothing here opens a log."""
