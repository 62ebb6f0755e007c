"""Shell text for workers: a package so that it travels inside the wheel."""
