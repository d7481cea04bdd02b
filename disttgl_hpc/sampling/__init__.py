"""What a batch is: neighbours, negatives, mail, pair features, message flow graphs. No torch."""
