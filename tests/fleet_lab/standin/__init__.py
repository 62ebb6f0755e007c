"""What the practice fleet puts in the place of NVIDIA's tools. Standard library only: these
modules are run by the machine's own Python, and start in a few milliseconds.
"""
