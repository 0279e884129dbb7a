"""What does a user see? One view a file: data in, text or a table out, nothing changed."""
