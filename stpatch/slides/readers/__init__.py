"""Readers: one module a platform, and the registry that recognizes files; what they share is in `slides.formats`."""
