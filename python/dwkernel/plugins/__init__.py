"""Plugins: what extends the kernel while it runs."""
