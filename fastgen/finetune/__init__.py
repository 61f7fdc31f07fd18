"""Teaching the generator a data set: LoRA and textual inversion."""
