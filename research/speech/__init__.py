"""Speech tools: audio files, log-mel features, augmentation, decoding, alignment, error rates."""
