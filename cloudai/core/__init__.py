"""Pure decisions: the domain, its state machine, what a sighting means, where a task goes.

Nothing in here knows a clock, a disk, a network or a framework (``now`` is an argument).
"""
