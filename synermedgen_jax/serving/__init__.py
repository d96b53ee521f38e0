"""The app: pages on the loopback address, a queue, temporary folders."""
