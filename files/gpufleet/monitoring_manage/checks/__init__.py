"""Judgements, one module a subject. They are given what was answered, and touch nothing themselves."""
