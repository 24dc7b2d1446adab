"""python3 -m gpufleet.monitoring_manage"""

import sys

from .cli import main

sys.exit(main())
