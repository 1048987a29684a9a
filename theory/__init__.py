"""Closed forms: plain numbers and arrays in, predictions out. Knows neither the simulators nor the screen."""
