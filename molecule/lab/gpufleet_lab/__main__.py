"""`lab.py` and `python3 -m gpufleet_lab` both end up here."""

import sys

from .cli import main

sys.exit(main())
