"""Methods: what is learnt, both halves in one file."""
