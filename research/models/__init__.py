"""Models in Linen, one readable file each; everything else sees only ``params`` and ``apply``."""
