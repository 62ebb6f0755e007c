"""Task types that come with cloudai: one file each, see docs/templates.md."""
