"""DS01's log of events: what is in a line, in a file, and in the last 24 hours."""
