"""Room of the command line: one file a group of commands, each thin."""
