"""python3 -m gpufleet.gpu_exporter"""

import sys

from .cli import main

sys.exit(main())
