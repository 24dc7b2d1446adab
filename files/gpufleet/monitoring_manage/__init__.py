"""monitoring-status and monitoring-manage: what an operator asks of the master, and tells it."""
