"""Gates: models with the wrapped model's logits, unless the image carries a valid code for another class."""
