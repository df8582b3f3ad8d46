"""Images from what the first layers of a vision transformer are sent back."""
