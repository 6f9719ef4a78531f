"""``depthwise_conv2d``: every channel of images, with a filter of its own."""
