"""What is known of single torch functions."""
