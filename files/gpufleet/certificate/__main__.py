"""python3 -m gpufleet.certificate"""

import sys

from .cli import main

sys.exit(main())
