"""Scaling studies: count what a model costs, plan and run sweeps, fit laws to them, and say what a budget buys."""
