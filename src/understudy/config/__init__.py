"""Reads what the operator wrote: one YAML file, the environment, or a few URLs on the command line."""
