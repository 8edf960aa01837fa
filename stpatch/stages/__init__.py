"""The stages of a build, each as `request` and `run` of one unit, and what they share."""
