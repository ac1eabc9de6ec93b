"""The little cluster: several real hosts on one machine, for tests that need ssh, rsync, NICs and dead cables."""
