"""Tells how unusual a measurement of cell nuclei is."""
