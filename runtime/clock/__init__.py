"""Clocks: how fast a counter runs, and seconds or ticks as a decoder counts them."""
