"""Data: from rows and templates to text examples, mixtures, tokens and packed rows."""
