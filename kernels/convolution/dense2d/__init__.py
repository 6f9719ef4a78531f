"""``conv2d``: images with every channel for every feature."""
