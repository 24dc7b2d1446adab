#!/usr/bin/env python3
"""The test lab's command line; `lab.py --help` says what it does, README.md what it is."""

import runpy

if __name__ == "__main__":
    runpy.run_module("gpufleet_lab", run_name="__main__", alter_sys=True)
