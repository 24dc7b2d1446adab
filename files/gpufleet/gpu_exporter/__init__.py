"""The GPU exporter: temperatures that nobody else reads, the health of each card, and who has which GPU.

Two processes. The server (cli, supervisor, server, exposition) answers scrapes from memory. The sampler (sampler,
collectors) reads drivers, files and Docker, and is killed and replaced when something blocks; protocol is what they say
to each other. Below the collectors are nvml and thermal (the cards), pci (sysfs) and docker; inventory is what the
collectors share. metrics is the table of all that can be served, config that of all that can be set.
"""
