"""``python -m wasession_cli``, the same as ``kubectl-wasession``."""

from wasession_cli.main import main

main()
