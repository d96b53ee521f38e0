"""What was made with the library; the library never imports it."""
