"""The plan: a training program that is pure data."""
