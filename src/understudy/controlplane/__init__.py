"""Runs in the background; each file drives one decider of core."""
