"""Published CTC recognisers: read, run, fine-tuned and written without torch."""
