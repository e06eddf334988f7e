"""`python -m flo` is the `flo` command."""

from flo.cli import main

main()
