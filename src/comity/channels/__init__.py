"""Channels: how contributions become visible."""
