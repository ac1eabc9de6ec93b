"""What a job will need before it is started: memory of each card and host, and time."""
