"""How topologies change during training: when, what is pruned, what grows, and what moves along."""
