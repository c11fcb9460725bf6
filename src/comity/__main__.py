"""`python -m comity`, where the command is not on the path."""

from comity.cli import main

if __name__ == "__main__":
    main()
