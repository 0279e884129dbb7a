"""How does a plan become code that somebody reads and edits? A file for each part of what is written."""
