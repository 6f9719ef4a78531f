"""``conformer_convolution``: the middle of the Conformer's convolution module."""
