"""Curation: from a heap of raw text to a corpus, by published rules, with a ledger of what happened to each document."""
