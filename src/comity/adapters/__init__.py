"""Ordinary models of other libraries behind one face."""
