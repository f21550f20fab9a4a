"""`python -m axoneme.core.cli`: the program without its script."""

from axoneme.core.cli.main import main

main()
