"""How is a plan carried out by several processes? Which rank holds each block, and what each of them does."""
