"""Rules that choose genes: one module per rule, `panel` for corpus and slide, `patch` for one window."""
