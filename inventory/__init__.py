"""The example inventory: a package so that it travels inside the wheel, for ``cloudai init``."""
