"""Differential privacy: mechanisms, and what they spend."""
