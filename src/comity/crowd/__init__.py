"""Crowds as tables: many workers' answers to the same tasks, and the labels behind them."""
