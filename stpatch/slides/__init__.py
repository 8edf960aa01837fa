"""Slides: from vendor files to one canonical form."""
