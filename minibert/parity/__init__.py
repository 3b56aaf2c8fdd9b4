"""Where a BERT is verified: traced, recorded, and compared stage by stage with a reference."""
