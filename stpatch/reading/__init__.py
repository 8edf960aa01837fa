"""Reading a built dataset."""
