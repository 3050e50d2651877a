"""One module for a backend, one driver for a module."""
