"""What ``cloudai init`` puts into a new project, as it will lie there."""
