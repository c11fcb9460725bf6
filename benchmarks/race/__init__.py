"""The work of the speed benchmark, a bare loop that does nothing else, and the running of others beside it."""
