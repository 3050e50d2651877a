"""The edge towards web frameworks: each module imports one of them, and is imported by who uses it alone."""
