"""cloudai turns the SSH hosts a team already has into one GPU cluster."""

__version__ = "0.1.0"
