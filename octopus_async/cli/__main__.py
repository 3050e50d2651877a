"""``python -m octopus_async.cli`` is ``octopus``."""

from octopus_async.cli import main

main()
