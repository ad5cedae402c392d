"""Room of what the daemon tells: log lines and metrics. Never decides, never waits."""
