"""Attention under an interval mask, written for one kind of chip each."""
