"""`python -m dwkernel`: the command line."""

from dwkernel.cli import main

if __name__ == "__main__":
    main()
