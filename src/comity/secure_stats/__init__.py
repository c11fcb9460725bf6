"""Statistics over parties of whom nothing but sums is seen."""
