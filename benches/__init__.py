"""Measurements from Python: `python -m benches` compares with peers, `pytest benches` tracks us."""
