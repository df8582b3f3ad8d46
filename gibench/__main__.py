"""`python -m gibench` is the program `gibench`."""

from gibench.cli import main

if __name__ == "__main__":  # processes that are spawned import this again
    main()
