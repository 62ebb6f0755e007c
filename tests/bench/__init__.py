"""Benchmarks: cloudai next to what people use today, side by side in one run. They tell, and
never pass or fail on a time: ``make bench``, or ``python -m tests.bench --help``.
"""
