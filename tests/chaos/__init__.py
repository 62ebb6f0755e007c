"""Faults, what they must lead to, and a checker over everything that was seen meanwhile."""
