"""Combiners: many contributions to one."""
