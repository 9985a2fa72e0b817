"""Predicts how a diabetes progresses within a year."""
