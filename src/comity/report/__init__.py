"""One self-contained page, and the same in a terminal."""
