"""Engines: what carries envelopes between hub and sites."""
