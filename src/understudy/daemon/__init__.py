"""Wires everything that lives as long as the process; the only room that knows all others below the command line."""
