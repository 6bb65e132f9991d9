"""The bounds of the papers, and the moments and regions that they are made of."""
