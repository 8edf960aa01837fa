"""Molecules: tables of them, and their sums in square bins."""
