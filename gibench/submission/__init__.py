"""Rows as one file for others: written from what is stored, and checked by whoever is given it."""
