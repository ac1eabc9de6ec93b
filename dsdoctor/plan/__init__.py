"""A job and facts in, a LaunchPlan out: environment per host with reasons, commands, stages. Pure."""
