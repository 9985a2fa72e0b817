def score() -> None:
    """x"""
