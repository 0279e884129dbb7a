"""How does a plan look in a browser? One page that holds everything and asks no network for anything."""
