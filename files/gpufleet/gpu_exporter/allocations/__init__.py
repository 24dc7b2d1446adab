"""Who has which GPU: what containers, processes and files say, without asking anybody."""
