"""What does an editor ask of lpc? Problems, completion, hover, definitions, layout: the language server."""
