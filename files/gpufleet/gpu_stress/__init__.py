"""gpu-stress: a load on GPUs, as large as was asked for and no larger, to see dashboards and alerts at work.

The parent (cli, devices, supervisor) finds the GPUs, refuses those that somebody uses, and starts a process for each.
That process (worker) makes the load with PyTorch or CuPy (backends) in periods of 50 ms (pacing), measures its GPU
through NVML (meter), and holds the utilisation by feedback (control). protocol is what the two say to each other, and
output what the user sees of it.
"""
