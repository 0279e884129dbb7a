"""What does `python -m lpc` do? The same as the command `lpc`."""

from lpc.cli import main

main()
