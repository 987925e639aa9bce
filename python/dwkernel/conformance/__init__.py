"""Suites that everything behind a port must pass, for those who write their own adapter."""
