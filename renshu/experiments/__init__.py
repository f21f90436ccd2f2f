"""Many seeds and settings at once."""
