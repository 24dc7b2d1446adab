"""The programs of gpufleet.monitoring. What runs on a GPU worker travels as one zipapp, see ``gpufleet.build``."""

__version__ = "0.1.0"
