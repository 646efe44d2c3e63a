"""From files of any kind to documents: a stream with what cannot be read set aside, and the main text of web pages."""
