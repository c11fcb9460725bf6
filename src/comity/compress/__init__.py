"""Fewer bytes, both ways."""
