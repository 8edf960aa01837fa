"""Image: the pixel grid, patches cut from it, and splits."""
