"""How do several processes run one plan? Transports between ranks, what they agree on, and who starts them."""
