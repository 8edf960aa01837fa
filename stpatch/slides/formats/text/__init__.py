"""Delimited text: lines, columns, dense tables, and the tables of spots and cells."""
