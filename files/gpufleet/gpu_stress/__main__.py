"""python3 -m gpufleet.gpu_stress"""

import sys

from .cli import main

sys.exit(main())
