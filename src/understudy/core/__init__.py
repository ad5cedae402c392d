"""Decides: facts and now_s in, commands out. Imports nothing that has a clock, a socket or a framework."""
