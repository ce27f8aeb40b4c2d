"""`python -m evergraft`."""

from evergraft.cli import main

main()
