"""The programs of gpufleet.monitoring. Each travels as one zipapp: plugins/plugin_utils/zipapp.py."""

__version__ = "0.1.0"
