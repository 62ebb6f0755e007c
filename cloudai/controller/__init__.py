"""The loop that watches workers and carries out what ``core`` decides; owns the shells."""
