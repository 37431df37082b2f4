"""``make release VERSION=…``: everything that a release consists of, in ``build/release``."""
