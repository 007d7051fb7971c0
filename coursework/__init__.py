"""Four image-classification courseworks: `python -m coursework list` says what each is."""
