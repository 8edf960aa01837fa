"""Readers: one module a platform over shared helpers."""
