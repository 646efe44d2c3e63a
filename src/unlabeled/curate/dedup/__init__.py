"""Copies, near copies, repeated text and repeated meaning: the steps over the whole corpus."""
