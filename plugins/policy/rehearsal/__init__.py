"""Policies that are tried out before they hold: against who is there now, and against what was recorded."""
