"""Readers: one module per platform, and the registry that recognizes files; what they share is in `slides.formats`."""
