"""Meshes of devices, and the one table that says which array dimension lies along which mesh axis."""
