"""The report: a dataset as one HTML file that people look at before they trust it."""
