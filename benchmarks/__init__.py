"""The library beside the drivers by hand and other libraries, in one run: ratios, not times.

    python -m benchmarks [--quick] [--json FILE] [--plots FOLDER] [--loop NAME] [FAMILY ...]

By hand means the driver's own calls, one for each operation, a pool of 8 connections, and the same
durability settings. Both sides take turns for several rounds, and medians are compared. Real servers
are started for it, on loopback. docs/performance.md shows a run and says what limits each figure.
"""
