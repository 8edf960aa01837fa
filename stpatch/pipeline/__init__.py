"""Pipeline: the stages as functions of one unit, and what runs them."""
