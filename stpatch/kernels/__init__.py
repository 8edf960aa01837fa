"""Every compiled loop, and the typed bundles that the loops take; the only room that imports numba."""
