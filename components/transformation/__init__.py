"""Transform rows the same way in training and serving."""
