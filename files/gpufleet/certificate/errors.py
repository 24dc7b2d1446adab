"""What is told to whoever runs the program."""


class CertificateError(Exception):
    """What went wrong, for a person to read."""
