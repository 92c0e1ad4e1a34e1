"""Speech engines behind one narrow protocol, and the choice between them."""
