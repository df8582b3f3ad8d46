"""Attacks that know the defense and use it."""
