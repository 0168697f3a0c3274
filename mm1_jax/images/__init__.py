"""From the bytes of a picture to what an encoder is shown of it."""
