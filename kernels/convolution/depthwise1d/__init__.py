"""``depthwise_conv1d``: every channel along time, with a filter of its own."""
